"""The real pipeline, killed at many moments and restarted: its outs equal those of an uninterrupted run."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from .conftest import REPRO, World, assert_names, checkout, outs, the_error, tiny_params
from .test_verify import ELSEWHERE, SECRET

STARTED: dict[subprocess.Popen, Path] = {}  # the processes that tests started, and the files of their output


def start(world: World, command: str, log: Path) -> subprocess.Popen:
    with open(log, "a") as file:
        process = subprocess.Popen(
            ["bash", "-c", command], cwd=world.folder, env=world.environment(), stdout=file, stderr=file, start_new_session=True
        )
    STARTED[process] = log
    return process


@pytest.fixture(autouse=True)
def end_started_processes() -> Iterator[None]:
    """End the processes of a test that fails."""
    yield
    while STARTED:
        with suppress(ProcessLookupError):
            os.killpg(STARTED.popitem()[0].pid, signal.SIGKILL)


def until(happened: Callable[[], bool], process: subprocess.Popen) -> None:
    """Wait for a moment. Fail if the process ends first."""
    while not happened():
        assert process.poll() is None, f"the process ended before the moment; its output:\n{STARTED[process].read_text()}"
        time.sleep(0.001)


def has_checkpoint(stage: str, step: int) -> Callable[[World, str], bool]:
    return lambda world, said: world.newest(stage) >= step


def writes_checkpoint(stage: str) -> Callable[[World, str], bool]:
    return lambda world, said: any(world.folder.glob(f".checkpoints/{stage}/*/*.part"))


def writes_output(out: str) -> Callable[[World, str], bool]:
    return lambda world, said: any((world / out).parent.glob(f".{Path(out).name}.*.part"))


def says(line: str) -> Callable[[World, str], bool]:
    return lambda world, said: line in said


# The running stage, the moment, the longest random wait after the moment in seconds, and the process that is killed.
MOMENTS: list[tuple[str, Callable[[World, str], bool], float, str]] = [
    ("prepare", says("prepare: reads"), 1.0, "dvc and stage"),
    ("base", has_checkpoint("base", 4), 0.2, "dvc and stage"),  # in a step
    ("base", writes_output("models/base"), 0.0, "dvc and stage"),
    ("sft", writes_checkpoint("sft"), 0.0, "dvc and stage"),
    ("sft", says("sft: wrote"), 0.0, "dvc and stage"),  # between the stage and dvc.lock
    ("reward", has_checkpoint("reward", 1), 0.1, "stage"),
    ("ppo", says("ppo: reads"), 6.0, "dvc and stage"),
    ("ppo", has_checkpoint("ppo", 1), 0.3, "dvc"),  # in generation or update; the stage runs longer than dvc
    ("sample", says("sample@rlhf: reads"), 3.0, "dvc and stage"),
    ("evaluate", says("evaluate: reads"), 6.0, "stage"),
]
# Three kills: between a stage and dvc.lock, in a step, and of dvc alone, so that the stage runs longer than dvc.
FEW = [MOMENTS[number] for number in (4, 5, 7)]


def kill(world: World, dvc: subprocess.Popen, stage: str, whom: str) -> None:
    children = [child for child in psutil.Process(dvc.pid).children(recursive=True) if f"stages/{stage}.py" in child.cmdline()]
    if whom == "dvc and stage":
        os.killpg(dvc.pid, signal.SIGKILL)
    elif whom == "dvc":
        dvc.kill()
    else:
        for child in children:
            child.kill()
    dvc.wait()


@pytest.mark.parametrize(
    "moments", [FEW, pytest.param(MOMENTS, marks=pytest.mark.thorough)], ids=["three moments", "ten moments"]
)
def test_a_killed_pipeline_ends_with_the_same_bytes(
    finished_world: World, tmp_path: Path, moments: list[tuple[str, Callable[[World, str], bool], float, str]]
) -> None:
    """The clone belongs to another user and is in another folder. So this test includes a short form of test_verify.py."""
    # A copy of /bin/sh: the sh of Debian stays as a process between dvc and a stage, but bash replaces itself by the stage.
    shell = str(shutil.copy("/bin/sh", tmp_path / "nu"))
    home = tmp_path / "home of somebody"
    home.mkdir()
    world = checkout(tmp_path / "another folder" / "clone", tiny_params(), ELSEWHERE | {"HOME": str(home), "SHELL": shell})
    rng, log = random.Random(7), tmp_path / "log"
    for number, (stage, moment, wait, whom) in enumerate(moments):
        log.unlink(missing_ok=True)  # a stage that survived its dvc still writes to the old file
        process = start(world, REPRO, log)
        before = {name: world.newest(name) for name in ("base", "sft", "reward", "ppo")}
        until(lambda moment=moment: moment(world, log.read_text()), process)  # type: ignore[misc]
        time.sleep(rng.uniform(0, wait))
        kill(world, process, stage, whom)
        for name, step in before.items():
            if step and f"{name}: reads" in log.read_text():
                resumed = re.search(rf"^{name}: .*checkpoint.* step (\d+)$", log.read_text(), re.MULTILINE)
                assert resumed, number
                assert int(resumed[1]) >= step, "a stage that outlived its dvc may have done another step"
    final = world.run("bash", "-c", REPRO)
    assert "Traceback" not in final
    assert SECRET not in final
    assert world.stages_run(final)[-1] == "evaluate"
    folders = ("data", "models", "metrics", "plots", "reports")
    whole, killed = outs(finished_world, *folders), outs(world, *folders)
    assert whole.keys() == killed.keys(), "no file is missing, and none is left over"
    assert [name for name in whole if whole[name] != killed[name]] == []
    assert (world / "dvc.lock").read_bytes() == (finished_world / "dvc.lock").read_bytes()
    assert not world.newest("ppo"), "dvc.lock has recorded PPO, so its checkpoints are removed"
    written = outs(world, *folders, "runs", ".checkpoints")
    assert [name for name, content in written.items() if SECRET.encode() in content] == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_ppo_after_a_checkpoint(world: World, tmp_path: Path, number: signal.Signals, status: int) -> None:
    world.set("checkpoint_every.ppo", 40)
    world.set("ppo.steps", 1000)
    process = start(world, "exec python stages/ppo.py", tmp_path / "log")
    until(lambda: world.newest("ppo") == 40, process)
    time.sleep(1)  # now PPO is in a later step; right after a checkpoint it would have nothing to write
    runs = world / "plots/ppo.csv"
    before = runs.read_bytes()
    process.send_signal(number)
    assert process.wait() == status
    said = (tmp_path / "log").read_text()
    last_step, stopped = [line for line in said.splitlines() if number.name in line]
    assert_names(last_step, "ppo: ", "this step", "again")
    assert_names(stopped, "ppo: ", "stopped")
    assert said.endswith(f"{stopped}\n")
    assert 40 < world.newest("ppo") < 80
    assert runs.read_bytes() == before


def test_a_signal_that_was_ignored_from_the_start_stays_ignored(world: World, tmp_path: Path) -> None:
    """A process that a script starts with `&` ignores SIGINT. So Ctrl-C does not stop a stage that runs in the background."""
    world.set("ppo.steps", 12)
    process = start(world, "trap '' INT; exec python stages/ppo.py", tmp_path / "log")
    until(lambda: world.newest("ppo") >= 1, process)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 0, (tmp_path / "log").read_text()
    assert "SIGINT" not in (tmp_path / "log").read_text()


def test_a_stage_waits_for_the_stage_that_writes_its_inputs(world: World, tmp_path: Path) -> None:
    """A stage is started by hand while another stage writes its inputs."""
    world.set("sft.epochs", 1000)
    first = start(world, "exec python stages/sft.py", tmp_path / "first")
    until(lambda: "sft: reads" in (tmp_path / "first").read_text(), first)
    second = start(world, "exec python stages/reward.py", tmp_path / "second")
    until(lambda: "waits" in (tmp_path / "second").read_text(), second)
    (line,) = [line for line in (tmp_path / "second").read_text().splitlines() if "waits" in line]
    assert_names(line, "reward: ", "models/sft", "sft (", str(first.pid))
    first.terminate()
    assert first.wait() == 143
    assert second.wait() == 0


@pytest.mark.parametrize("cut", [0, 20])
def test_a_truncated_dvc_lock_is_restored(world: World, cut: int) -> None:
    lock = world / "dvc.lock"
    whole = lock.read_bytes()
    lock.write_bytes(whole[:cut])
    (world / ".dvc/tmp/rwlock").write_text('{"read"')
    world.run("dvc", "repro", status=255)
    said = world.run("bash", "-c", REPRO)
    restored, removed = [line for line in said.splitlines() if line.startswith("mend: ")]
    assert_names(restored, "dvc.lock", "damaged", "restored from git")
    assert_names(removed, ".dvc/tmp/rwlock", "damaged", "removed")
    assert world.stages_run(said) == []
    assert lock.read_bytes() == whole
    lock.write_text("<<<<<<< HEAD\n")
    assert_names(the_error("mend", world.run("python", "stages/mend.py", status=1)), "dvc.lock", "merge")
    lock.write_bytes(whole[:cut])
    (world / ".git").rename(world / "away")
    assert_names(world.run("python", "stages/mend.py"), "mend: ", "dvc.lock ", "dvc.lock.cut")
    assert (world / "dvc.lock.cut").read_bytes() == whole[:cut]


# This Python adopts orphans, as the supervisors of some containers do, and starts dvc in a new session.
REAPER = """
import ctypes, subprocess, sys, time
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER
dvc = subprocess.Popen(["dvc", "repro", "-s", "judge"], start_new_session=True)
print(f"dvc is {dvc.pid}", flush=True)
dvc.wait()
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
@pytest.mark.parametrize("shell", ["sh", "bash"])  # the shell of DVC: Debian's sh stays, bash replaces itself
def test_a_stage_whose_dvc_died_while_it_was_importing_writes_nothing(world: World, tmp_path: Path, shell: str) -> None:
    world.variables["SHELL"] = f"/bin/{shell}"
    world.set("judge.ngrams", 1)
    log = tmp_path / "log"
    (tmp_path / "reaper.py").write_text(REAPER)
    process = start(world, f"exec python {tmp_path / 'reaper.py'}", log)
    until(lambda: "> python stages/judge.py" in log.read_text(), process)
    time.sleep(0.3)
    started = re.search(r"dvc is (\d+)", log.read_text())
    assert started
    os.kill(int(started[1]), signal.SIGKILL)
    until(lambda: re.search("^judge: .*dvc.* has ended", log.read_text(), re.MULTILINE) is not None, process)
    assert not (world / "models/judge").exists()
