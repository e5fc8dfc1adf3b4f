"""`dtype: auto`: the type of products is measured once, and a run keeps it."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
import torch

from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.models import probe
from rlhf_sentiment.training import dtype
from rlhf_sentiment.training.checkpoints import Checkpoints

from .conftest import assert_names
from .test_ppo_step import settings

FAST, SLOW = {"float32": 2.4, "bfloat16": 1.0}, {"float32": 1.19, "bfloat16": 1.0}


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, float]]:
    """Give the results of the next probes. A probe more than these fails."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    results: list[dict[str, float]] = []
    monkeypatch.setattr(dtype, "seconds_of", lambda shapes, device: results.pop(0))
    return results


def kept(every: int | None = 5, **changes: Any) -> Checkpoints:
    return Checkpoints("ppo", settings(**changes), [], every)


def chosen(model: Any, checkpoints: Checkpoints, setting: str = "auto", arithmetic: str = "fast") -> str:
    return dtype.settled(settings(dtype=setting), arithmetic, model, checkpoints).dtype


@pytest.mark.parametrize(("measured", "expected"), [(FAST, "bfloat16"), (SLOW, "float32")])
def test_bfloat16_is_used_where_it_is_clearly_faster(
    tiny_model: Callable[..., Any],
    seconds: list[dict[str, float]],
    measured: dict[str, float],
    expected: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    seconds.append(measured)
    assert chosen(tiny_model("causal"), kept()) == expected
    ratio = measured["float32"]
    line = f"ppo: computes products in {expected} (ppo.dtype: auto; bfloat16 is {ratio} times as fast as float32 here)\n"
    assert capsys.readouterr().out == line


def test_the_probe_runs_once_for_each_size_of_model(
    tiny_model: Callable[..., Any], seconds: list[dict[str, float]], tmp_path: Path
) -> None:
    seconds.append(FAST)
    assert [chosen(tiny_model("causal"), kept(every=None)) for _ in range(3)] == ["bfloat16"] * 3
    (file,) = (tmp_path / ".checkpoints/dtype").iterdir()
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["speed of bfloat16 relative to float32"] == 2.4
    assert [16, 48] in found["products"]
    seconds.append(SLOW)
    assert chosen(tiny_model("causal", n_embd=32), kept(every=None)) == "float32", "another size has its own probe"
    file.write_text("{", encoding="utf-8")
    seconds.append(SLOW)
    assert chosen(tiny_model("causal"), kept(every=None)) == "float32", "a damaged file is measured anew"
    assert not seconds


@pytest.mark.parametrize("ratio", ["NaN", "-5", "Infinity", "0", "1" * 400, '"fast"', "[" * 20_000])
def test_a_probe_whose_file_says_no_ratio_runs_again(
    tiny_model: Callable[..., Any], seconds: list[dict[str, float]], tmp_path: Path, ratio: str
) -> None:
    seconds += [SLOW, FAST]
    assert chosen(tiny_model("causal"), kept(every=None)) == "float32"
    (file,) = (tmp_path / ".checkpoints/dtype").iterdir()
    file.write_text(f'{{"speed of bfloat16 relative to float32": {ratio}}}', encoding="utf-8")
    assert chosen(tiny_model("causal"), kept(every=None)) == "bfloat16"


def test_a_probe_whose_file_cannot_be_written_is_used(
    tiny_model: Callable[..., Any], seconds: list[dict[str, float]], tmp_path: Path
) -> None:
    (tmp_path / ".checkpoints").mkdir()
    (tmp_path / ".checkpoints/dtype").write_text("", encoding="utf-8")
    seconds.append(FAST)
    assert chosen(tiny_model("causal"), kept(every=None)) == "bfloat16"


@pytest.mark.parametrize("content", ["{}", '["bfloat16"]', '["float16", "x"]'])
def test_a_damaged_choice_of_a_run_is_one_line(
    tiny_model: Callable[..., Any], seconds: list[dict[str, float]], content: str
) -> None:
    seconds.append(FAST)
    run = kept()
    chosen(tiny_model("causal"), run)
    (run.folder / "dtype.json").write_text(content, encoding="utf-8")
    with pytest.raises(StageError) as error:
        chosen(tiny_model("causal"), run)
    assert_names(error.value, "dtype.json", "set ppo.dtype to one of them")


def test_a_run_that_resumes_keeps_its_type(
    tiny_model: Callable[..., Any], seconds: list[dict[str, float]], tmp_path: Path
) -> None:
    seconds.append(FAST)
    assert chosen(tiny_model("causal"), kept()) == "bfloat16"
    for file in (tmp_path / ".checkpoints/dtype").iterdir():
        file.unlink()
    assert chosen(tiny_model("causal"), kept()) == "bfloat16"
    seconds.append(SLOW)
    assert chosen(tiny_model("causal"), kept(steps=2)) == "float32", "another run chooses for itself"


def test_portable_arithmetic_and_a_named_type_need_no_probe(
    tiny_model: Callable[..., Any], seconds: list[dict[str, float]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert chosen(tiny_model("causal"), kept(), arithmetic="portable") == "float32"
    assert chosen(tiny_model("causal"), kept(), "bfloat16") == "bfloat16"
    assert chosen(tiny_model("causal"), kept(), "float32") == "float32"
    assert capsys.readouterr().out == ""


def test_the_probe_times_the_products_of_the_model(tiny_model: Callable[..., Any]) -> None:
    shapes = probe.shapes_of(tiny_model("causal", vocab_size=5000))
    assert shapes == [(16, 16), (16, 48), (16, 64), (16, 2048), (64, 16)], "attention, MLP and the vocabulary, at most 2,048"
    found = probe.seconds_of(shapes, torch.device("cpu"))
    assert list(found) == ["float32", "bfloat16"]
    assert all(0 < one < 0.1 for one in found.values())


def test_the_probe_counts_only_the_time_of_its_own_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each product takes 2 s of the thread's time in float32 and 1 s in bfloat16. Some runs are disturbed."""
    seen: list[int] = []
    spent = {"float32": 2.0, "bfloat16": 1.0}
    clock = 0.0

    @contextmanager
    def spend(dtype: str, device: torch.device) -> Iterator[None]:
        nonlocal clock
        seen.append(torch.get_num_threads())
        yield
        clock += spent[dtype] + (0.5 if len(seen) % 5 == 0 else 0.0)  # some runs of a product are disturbed

    monkeypatch.setattr(probe, "precision", spend)
    monkeypatch.setattr("time.thread_time", lambda: clock)
    monkeypatch.setattr(probe, "_SECONDS", 0.02)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert probe.seconds_of([(4, 4), (4, 8), (8, 4)], torch.device("cpu")) == {"float32": 6.0, "bfloat16": 3.0}
        assert torch.get_num_threads() == 2, "training has its threads again"
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}


def test_two_probes_at_once_leave_one_whole_file(
    tiny_model: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    both = Barrier(2, timeout=60)

    def seconds_of(shapes: object, device: object) -> dict[str, float]:
        both.wait()  # neither has written its file
        return FAST

    written: list[Path] = []
    move = Path.replace

    def replace(aside: Path, file: Path) -> Path:
        written.append(aside)
        return move(aside, file)

    monkeypatch.setattr(Path, "replace", replace)
    monkeypatch.setattr(dtype, "seconds_of", seconds_of)
    models = [tiny_model("causal") for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda model: chosen(model, kept(every=None)), models)) == ["bfloat16"] * 2
    assert len(set(written)) == 2, "each writes a file of its own"
    (file,) = (tmp_path / ".checkpoints/dtype").iterdir()
    assert json.loads(file.read_text(encoding="utf-8"))["speed of bfloat16 relative to float32"] == 2.4
