"""Checkpoints: a damaged checkpoint or one of another run is skipped, and the highest step is the newest."""

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml

from rlhf_sentiment.engine import environment
from rlhf_sentiment.engine.arithmetic import Arithmetic
from rlhf_sentiment.engine.dvc_state import hash_of
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.params import Settings
from rlhf_sentiment.training import checkpoints
from rlhf_sentiment.training.checkpoints import Checkpoints, forget_recorded, key_of

from .conftest import ROOT, World, assert_names


class Params(Settings):
    seed: int
    checkpoint_every: int | None = 5


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/rows.jsonl").write_text("{}\n")
    return tmp_path


def kept(seed: int = 1, every: int | None = 5) -> Checkpoints:
    return Checkpoints("ppo", Params(seed=seed), ["data/rows.jsonl"], every)


def save(run: Checkpoints, step: int) -> None:
    with run.writing(step) as folder:
        torch.save({"step": step}, folder / "state.pt")


def newest(run: Checkpoints) -> int | None:
    state = run.newest(lambda folder: torch.load(folder / "state.pt", weights_only=True))
    return None if state is None else state["step"]


def record(outs: dict[str, str]) -> None:
    """Write a dvc.lock that records `outs` of PPO."""
    entries = [{"path": out, "md5": md5} for out, md5 in outs.items()]
    Path("dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": {"ppo": {"cmd": "x", "outs": entries}}}))


def steps(run: Checkpoints) -> list[int]:
    return sorted(int(folder.name) for folder in run.folder.iterdir() if folder.is_dir())


def test_the_newest_checkpoint_is_loaded_and_two_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    run = kept()
    assert newest(run) is None
    for step in (5, 10, 15):
        save(run, step)
    assert newest(run) == 15
    assert steps(run) == [10, 15]
    assert_names(capsys.readouterr().out, "ppo: ", "checkpoint", "step 15\n")


def test_checkpoints_are_ordered_by_step_and_not_by_file_time() -> None:
    run = kept()
    for step in (9, 10):
        save(run, step)
    for path, when in ((run.folder / "000000010", 0), (run.folder / "000000009", 4_000_000_000)):
        for inner in (path, *path.iterdir()):
            os.utime(inner, (when, when))
    assert newest(run) == 10


def truncate(folder: Path) -> None:
    content = (folder / "state.pt").read_bytes()
    (folder / "state.pt").write_bytes(content[:-1])


def flip_a_bit(folder: Path) -> None:
    content = bytearray((folder / "state.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "state.pt").write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        truncate,
        flip_a_bit,
        lambda folder: (folder / "state.pt").unlink(),
        lambda folder: (folder / "checksums.json").unlink(),
        lambda folder: (folder / "checksums.json").write_text('{"state.pt": "0'),
        lambda folder: (folder / "checksums.json").write_text("[]"),
    ],
)
def test_a_damaged_checkpoint_is_skipped_for_the_previous_one(
    damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    run = kept()
    for step in (5, 10):
        save(run, step)
    damage(run.folder / "000000010")
    assert newest(run) == 5
    assert_names(capsys.readouterr().err, "ppo: warning: ", "checkpoint", "step 10 ", "skipped")
    for step in (6, 7):
        save(run, step)
    assert steps(run) == [6, 7], "the damaged checkpoint is not one of the two that are kept"
    assert newest(run) == 7


class Planted:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pwned",)


def test_a_checkpoint_with_a_pickle_is_skipped_and_runs_no_code(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A pickle that would run code is refused, even with correct checksums."""
    run = kept()
    save(run, 5)
    with run.writing(10) as folder:
        (folder / "state.pt").write_bytes(pickle.dumps(Planted(), protocol=2))
    with run.writing(15) as folder:
        torch.save(Planted(), folder / "state.pt")
    assert newest(run) is None
    assert capsys.readouterr().err.count("is skipped") == 2
    assert not (here / "pwned").exists()
    torch.load(run.folder / "000000015/state.pt", weights_only=False)
    assert (here / "pwned").exists()


def test_the_last_checkpoint_stays_if_writing_the_next_fails() -> None:
    run = kept()
    save(run, 5)

    def fail() -> None:
        with run.writing(10) as folder:
            (folder / "state.pt").write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(StageError) as error:
        fail()
    assert_names(error.value, "step 10: ", "no checkpoint", "No space left on device", "checkpoint_every.ppo empty")
    assert steps(run) == [5]
    assert newest(run) == 5


def test_half_written_checkpoints_are_removed(here: Path) -> None:
    run = kept()
    (run.folder / "000000010.part").mkdir(parents=True)
    (run.folder / "000000010.part/state.pt").write_text("half")
    del run
    assert newest(kept()) is None
    assert list(here.rglob("*.part")) == []


def test_without_an_interval_no_checkpoint_is_written(here: Path) -> None:
    run = kept(every=None)
    assert not run.due(5, 5)
    run.finish(["data/rows.jsonl"])
    assert not (here / ".checkpoints").exists()


def test_checkpoints_are_due_at_each_interval_and_at_the_end() -> None:
    run = kept()
    assert [step for step in range(1, 13) if run.due(step, 12)] == [5, 10, 12]


def test_the_key_changes_with_everything_that_changes_the_bytes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads = ["data"]
    keys = [key_of(Params(seed=1), reads)]
    assert keys[0] == key_of(Params(seed=1, checkpoint_every=None), reads)
    keys.append(key_of(Params(seed=2), reads))
    (here / "data/rows.jsonl").write_text("{ }\n")
    keys.append(key_of(Params(seed=1), reads))
    (here / "data/rows.jsonl").rename(here / "data/other.jsonl")
    keys.append(key_of(Params(seed=1), reads))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(threads + 1)
        keys.append(key_of(Params(seed=1), reads))
    finally:
        torch.set_num_threads(threads)
    with monkeypatch.context() as changed:
        changed.setattr(environment, "version", lambda name: "0")
        keys.append(key_of(Params(seed=1), reads))
    source = environment._source
    with monkeypatch.context() as changed:
        changed.setattr(environment, "_source", lambda path: "x" if path.name == "stage.py" else source(path))
        keys.append(key_of(Params(seed=1), reads))
    with monkeypatch.context() as changed:
        changed.setenv("MKL_CBWR", "AVX2")
        keys.append(key_of(Params(seed=1), reads))
    assert len(set(keys)) == len(keys)


def test_the_key_of_portable_arithmetic_is_the_same_on_every_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: dict[str, set[str]] = {"portable": set(), "fast": set(), "portable, without the promise": set()}
    for processor in ("one", "another"):
        machine = environment.machine() | {"processor": processor}
        monkeypatch.setattr(environment, "machine", lambda machine=machine: machine)
        for case, found in keys.items():
            arithmetic = case.partition(",")[0]
            reason = "this system is macOS" if "without" in case else None
            monkeypatch.setattr(checkpoints, "why_not_portable", lambda reason=reason: reason)
            settings = Arithmetic(arithmetic=arithmetic, threads=2)  # type: ignore[arg-type]
            found.add(key_of(settings, []))
    assert {case: len(found) for case, found in keys.items()} == {"portable": 1, "fast": 2, "portable, without the promise": 2}


def test_checkpoints_are_removed_after_dvc_has_recorded_the_run(here: Path) -> None:
    (here / "dvc.yaml").write_text("stages:\n  ppo:\n    cmd: python stages/ppo.py\n")
    run = kept()
    save(run, 5)
    (here / "models/ppo").mkdir(parents=True)
    (here / "models/ppo/b.txt").write_text("weights")
    run.finish(["models/ppo", "data/rows.jsonl"])
    assert newest(kept()) == 5, "dvc.lock does not have the run, because dvc may have been killed"
    outs = json.loads((run.folder / "outs.json").read_text())
    record(outs | {"models/ppo": "0.dir"})
    assert newest(kept()) == 5, "dvc.lock has another run"
    run.finish(["models/ppo", "data/rows.jsonl"])
    record(outs)
    assert newest(kept()) is None
    assert not run.folder.exists()


def test_hash_of_gives_the_hashes_in_dvc_lock(finished_world: World) -> None:
    recorded = yaml.safe_load((finished_world / "dvc.lock").read_text())["stages"]
    for stage in ("prepare", "sft", "ppo", "evaluate"):
        for out in recorded[stage]["outs"]:
            assert hash_of(finished_world / out["path"]) == out["md5"], out["path"]


def test_a_finished_pipeline_leaves_no_checkpoint(finished_world: World) -> None:
    assert [path for path in (finished_world / ".checkpoints").iterdir() if any(path.glob("*/*"))] == []


@pytest.mark.slow
def test_a_run_waits_for_another_run_of_its_key(here: Path) -> None:
    program = f"""
import sys; sys.path[:0] = [{str(ROOT / "stages")!r}, {str(ROOT)!r}]
from tests.test_checkpoints import kept, newest, save
run = kept()
print("first" if newest(run) is None else "second", flush=True)
save(run, 5)
(run.folder / "outs.json").write_text("{{}}")
print("saved", flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", program]
    options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": here}
    with subprocess.Popen(command, **options) as one, subprocess.Popen(command, **options) as two:  # type: ignore[call-overload]
        said = {process: process.stdout.readline() for process in (one, two)}
        first = next(process for process in said if said[process] == "first\n")
        second = one if first is two else two
        assert_names(said[second], "ppo: waits", "checkpoints/ppo/", str(first.pid))
        assert first.stdout.readline() == "saved\n"
        record({})
        forget_recorded()
        assert list(here.glob(".checkpoints/ppo/*/000000005")), "the first process holds the checkpoints"
        first.communicate("")
        assert second.communicate("")[0].splitlines()[-2:] == ["second", "saved"]
