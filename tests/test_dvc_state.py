"""The records of DVC in dvc.lock: which stages count, and how a damaged file is refused."""

from pathlib import Path

import pytest

from rlhf_sentiment.engine.dvc_state import recorded
from rlhf_sentiment.engine.errors import StageError

from .conftest import assert_names

PIPELINE = """
stages:
  ppo:
    cmd: python stages/ppo.py
  sample:
    foreach:
      base: {folder: models/base}
    do:
      cmd: python stages/sample.py ${key}
"""
LOCKED = "schema: '2.0'\nstages:\n" + "".join(
    f"  {name}:\n    cmd: x\n    outs:\n    - path: {name}.txt\n      md5: '1'\n"
    for name in ("ppo", "sample", "sample@base", "sample@dpo", "dpo")
)


def test_a_stage_that_dvc_yaml_no_longer_has_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert recorded() == {}
    Path("dvc.yaml").write_text(PIPELINE)
    assert recorded() == {}
    Path("dvc.lock").write_text(LOCKED)
    assert {name: run.outs for name, run in recorded().items()} == {
        "ppo": {"ppo.txt": "1"},
        "sample@base": {"sample@base.txt": "1"},
    }


@pytest.mark.parametrize(
    ("file", "text", "command"),
    [
        ("dvc.lock", "stages: [", "make repro"),
        ("dvc.lock", "stages: 3", "make repro"),
        ("dvc.yaml", "a: 1", "dvc repro"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, text: str, command: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.yaml").write_text(PIPELINE)
    Path("dvc.lock").write_text(LOCKED)
    Path(file).write_text(text)
    with pytest.raises(StageError) as error:
        recorded()
    assert_names(error.value, f"{file} ", "damaged", f"`{command}`")
