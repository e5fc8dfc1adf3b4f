"""Several processes give the results of one, and end together: by a fault, by a signal, or when their launcher is killed."""

import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import torch
import yaml
from safetensors.torch import load_file

from rlhf_sentiment.engine.arithmetic import Computing, Launching
from rlhf_sentiment.engine.errors import ConfigError, StageError
from rlhf_sentiment.engine.launch import environments_of
from rlhf_sentiment.engine.params import load
from rlhf_sentiment.engine.ranks import SIGNS, busy
from rlhf_sentiment.models import exchange
from rlhf_sentiment.training.shares import Shares

from .conftest import ROOT, World, assert_names, outs
from .test_killed import end_started_processes, start, until  # noqa: F401 (a fixture that applies to this file)

FOLDERS = ("data", "models", "metrics", "plots", "reports")
LORA = {"rank": 2, "alpha": 4, "dropout": 0.0, "target": "all"}
CLOSE = 1.01e-5  # the figures have five decimals


# Each rank of a run leaves a file, so that a test that compares two processes with one has seen two.
MARK = """
if size() > 1:
    Path(f"ran-{rank()}").touch()
"""


@pytest.fixture
def ranks(world: World) -> World:
    """Return a finished world whose stages may run in several processes."""
    world.set("arithmetic", "fast")
    world.set("threads", 1)
    world.set("ppo.steps", 3)
    world.set("ppo.dtype", "float32")
    add(world, "engine/ranks.py", MARK)
    return world


def run(world: World, stage: str, launcher: int | str | None, status: int = 0) -> str:
    """Run a stage from its start in some number of processes, and return its output."""
    shutil.rmtree(world / ".checkpoints", ignore_errors=True)
    for mark in world.folder.glob("ran-*"):
        mark.unlink()
    world.set("launcher", launcher)
    said = world.run("python", *f"stages/{stage}".replace("@", ".py ").split(), status=status)
    if not isinstance(launcher, str):
        assert len(list(world.folder.glob("ran-*"))) == (launcher or 0)
    return said


def add(world: World, file: str, code: str) -> None:
    """Add code to a module of the world."""
    path = world / "stages/rlhf_sentiment" / file
    path.write_text(path.read_text() + "\n\n" + code)


def assert_close(one: Path, other: Path) -> None:
    """Compare a table or weights."""
    if one.suffix == ".safetensors":
        first, second = load_file(one), load_file(other)
        assert first.keys() == second.keys()
        for name, weight in first.items():
            torch.testing.assert_close(second[name], weight, atol=1e-5, rtol=0, msg=f"{other}: {name}")
    else:
        pd.testing.assert_frame_equal(pd.read_csv(one), pd.read_csv(other), atol=CLOSE, rtol=0)


def kept(world: World, folder: Path, *paths: str) -> Path:
    """Copy files of the world to a folder."""
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(world / path, folder / path)
    return folder


def changed(world: World, before: dict[str, bytes]) -> list[str]:
    """Return the names of the outs that are no longer as they were."""
    now = outs(world, *FOLDERS)
    return [name for name in now.keys() | before.keys() if now.get(name) != before.get(name)]


# The rows of a batch


@pytest.mark.parametrize("size", [1, 2, 3, 4])
@pytest.mark.parametrize(("count", "blocks"), [(12, 1), (12, 3), (7, 1), (10, 2), (2, 1)])
def test_the_rows_of_all_ranks_are_the_batch(monkeypatch: pytest.MonkeyPatch, size: int, count: int, blocks: int) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(size))
    own = []
    for rank in range(size):
        monkeypatch.setenv("RANK", str(rank))
        own.append(exchange.own_rows(count, blocks))
    gathered = torch.cat(own)
    assert gathered[exchange._order(count, blocks)].tolist() == list(range(count))
    parts = [[row for row in rows.tolist() if row < count // blocks] for rows in own]  # of the first block
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_each_rank_has_its_share_of_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    shares = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        shares.append(list(Shares(range(9), 4)))
    # The last batch has one row, fewer than there are ranks. Both compute it.
    assert shares == [[[0, 1], [4, 5], [8]], [[2, 3], [6, 7], [8]]]


# The setting


@pytest.mark.parametrize(
    ("arithmetic", "launcher", "said"),
    [
        ("fast", 1, "a number of processes from 2"),
        ("fast", True, "a number of processes from 2"),
        ("fast", "two", "a number of processes from 2"),
        ("portable", 2, "needs `arithmetic: fast`"),
    ],
)
def test_a_wrong_launcher_is_refused(tmp_path: Path, arithmetic: str, launcher: object, said: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump({"arithmetic": arithmetic, "threads": 1, "launcher": launcher}))
    with pytest.raises(ConfigError, match=re.escape(said)):
        load(Launching, file)


def test_one_gpu_for_several_processes_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "params.yaml"
    settings = {"arithmetic": "fast", "threads": 1, "launcher": 2, "seed": 1, "device": "cuda:1"}
    file.write_text(yaml.safe_dump(settings))
    with pytest.raises(ConfigError, match="device: cuda:1 is one GPU"):
        load(Computing, file)


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    with pytest.raises(StageError, match="3 processes need as many GPUs, and this machine has 2"):
        exchange.join(torch.device("cuda"))


def test_a_rank_that_writes_a_large_file_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SIGNS, str(tmp_path))
    file = tmp_path / "0"
    file.touch()
    os.utime(file, (0, 0))
    with busy():
        deadline = time.monotonic() + 10
        while file.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert file.stat().st_mtime > 0


def test_each_rank_gets_the_variables_of_torchrun() -> None:
    first, second = environments_of(2)
    assert [first[name] for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")] == ["0", "0", "2"]
    assert second["RANK"] == second["LOCAL_RANK"] == "1"
    assert first["MASTER_PORT"] == second["MASTER_PORT"]


def test_a_file_of_accelerate_that_is_absent_is_one_line(ranks: World) -> None:
    said = run(ranks, "ppo.py", "absent.yaml", status=2)
    assert_names(said.strip().splitlines()[-1], "launcher", "absent.yaml")
    assert "Traceback" not in said


@pytest.mark.parametrize("kind", ["DEEPSPEED", "XLA"])
def test_a_file_of_accelerate_that_asks_for_another_engine_is_refused(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "other.yaml"
    file.write_text((ROOT / "docs/scaling/ddp.yaml").read_text().replace("MULTI_GPU", kind))
    with pytest.raises(ConfigError, match=f"it asks for {kind}, but DDP and FSDP are supported"):
        environments_of(str(file))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1, 2]", "holds a list; it should have keys such as `num_processes:`"),
        ("num_processes: 2\na: [", "not YAML at line 2, column 5"),
        ("", "is empty; it should have keys such as `num_processes:`"),
        ("distributed_type: MULTI_GPU", "num_processes is missing"),
        ({"distributed_type": False}, "it asks for False, but DDP"),
        ({"num_processes": 1}, "num_processes should be 2 or more"),
        ({"num_processes": 0}, "num_processes should be 2 or more"),
        ({"num_processes": "abc"}, "num_processes should be 2 or more"),
        ({"num_processes": 2.5}, "num_processes should be 2 or more"),
        ({"num_processes": 3, "num_machines": 2}, "a multiple of num_machines"),
        ({"num_processes": 4, "num_machines": 2, "machine_rank": 5}, "machine_rank should be from 0 to 1"),
    ],
)
def test_a_wrong_file_of_accelerate_is_one_line(tmp_path: Path, content: object, said: str) -> None:
    file = tmp_path / "wrong.yaml"
    usual = yaml.safe_load((ROOT / "docs/scaling/ddp.yaml").read_text())
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(usual | content))
    with pytest.raises(ConfigError, match=f"{re.escape(str(file))}:? .*{said}") as error:
        environments_of(str(file))
    assert len(str(error.value).splitlines()) == 1


def test_a_file_of_accelerate_says_the_number_of_ranks() -> None:
    found = environments_of(str(ROOT / "docs/scaling/ddp.yaml"))
    assert [one["RANK"] for one in found] == ["0", "1"]
    assert {one["MASTER_PORT"] for one in found}.isdisjoint({"0", "None"})
    assert all("OMP_NUM_THREADS" not in one for one in found)


def test_the_second_machine_has_the_later_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_NODEID", "1")
    tree = yaml.safe_load((ROOT / "docs/scaling/two-machines.yaml").read_text())
    tree |= {"num_processes": 4, "main_process_port": 29501}
    file = tmp_path / "two.yaml"
    file.write_text(yaml.safe_dump(tree))
    found = environments_of(str(file))
    assert [(one["RANK"], one["LOCAL_RANK"]) for one in found] == [("2", "0"), ("3", "1")]
    assert {(one["MASTER_ADDR"], one["MASTER_PORT"], one["WORLD_SIZE"]) for one in found} == {("10.0.0.1", "29501", "4")}


def test_processes_that_another_launcher_started_are_refused_where_the_setting_is_empty(ranks: World) -> None:
    done = World(ranks.folder, {"RANK": "0", "WORLD_SIZE": "2"}).run("python", "stages/ppo.py", status=1)
    assert_names(done, "started as 2 processes", "launcher in params.yaml is empty")
    done = World(ranks.folder, {"RANK": "1", "WORLD_SIZE": "2"}).run("python", "stages/check.py", status=1)
    assert_names(done, "started as 2 processes", "this stage runs in one")
    ranks.set("launcher", 2)
    done = World(ranks.folder, {"RANK": "0", "WORLD_SIZE": "3"}).run("python", "stages/ppo.py", status=1)
    assert_names(done, "started as 3 processes", "launcher in params.yaml is 2")


def test_a_leftover_rank_is_ignored(ranks: World) -> None:
    """The variable RANK alone says nothing. torchrun sets WORLD_SIZE too."""
    done = World(ranks.folder, {"RANK": "1"}).run("python", "stages/check.py")
    assert "check: wrote" in done


# Two processes and one

RECORD = """
_assess = assess

def assess(*arguments, **named):
    found = _assess(*arguments, **named)
    from pathlib import Path
    number = len(list(Path(".").glob(f"advantages-{rank()}-*")))
    torch.save([found.advantages, found.returns, found.kl_k1], f"advantages-{rank()}-{number}.pt")
    return found
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("critic", "lora"), [("shared", None), pytest.param("separate", None, marks=pytest.mark.thorough), ("separate", LORA)]
)
def test_two_processes_of_ppo_equal_one(ranks: World, tmp_path: Path, critic: str, lora: dict[str, Any] | None) -> None:
    """One process has micro-batches of 2 rows. Each of two ranks has 3 rows of a minibatch, in micro-batches of 2 and 1."""
    ranks.set("ppo.lora", lora)
    ranks.set("ppo.critic", critic)
    ranks.set("ppo.batch_size", 12)
    ranks.set("ppo.micro_batch_size", 2)
    ranks.set("ppo.minibatches", 2)
    ranks.set("ppo.learning_rate", 1e-3)
    add(ranks, "ppo/step.py", RECORD)
    files = ["plots/ppo.csv", "plots/ppo_validation.csv", "models/ppo/model.safetensors", "models/ppo/critic.safetensors"]
    run(ranks, "ppo.py", None)
    one = kept(ranks, tmp_path / "one", *files)
    assess = sorted(path.name for path in ranks.folder.glob("advantages-0-*"))
    assert len(assess) >= 3
    kept(ranks, one, *assess)
    for name in assess:
        (ranks / name).unlink()
    run(ranks, "ppo.py", 2)
    for name in assess:
        for rank in (0, 1):  # each rank has the whole batch
            found, expected = torch.load(ranks / name.replace("-0-", f"-{rank}-")), torch.load(one / name)
            for mine, his in zip(found, expected, strict=True):
                torch.testing.assert_close(mine, his, atol=1e-5, rtol=0)
    for file in files:
        assert_close(one / file, ranks / file)
    before, after = load_file(ranks / "models/sft/model.safetensors"), load_file(ranks / "models/ppo/model.safetensors")
    assert max(float((after[name] - before[name]).abs().max()) for name in before) > 1e-3  # it has learned something


def losses(world: World, stage: str) -> list[float]:
    """Return the loss of each step of a Trainer, with all its digits."""
    states = world.folder.glob(f".checkpoints/{stage}/*/*/checkpoint-*/trainer_state.json")
    rows = [json.loads(path.read_text())["log_history"] for path in states]
    return [row["loss"] for row in max(rows, key=len)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "count", "lora"),
    [
        ("base", None, None),
        ("sft", "rows", None),
        ("reward", "pairs", LORA),
        pytest.param("reward", "pairs", None, marks=pytest.mark.thorough),
    ],
)
def test_two_processes_of_a_trainer_equal_one(
    ranks: World, tmp_path: Path, stage: str, count: str | None, lora: dict[str, Any] | None
) -> None:
    """The last batch of sft and of reward has one row, fewer than there are ranks.

    The weights are not compared. Adam makes steps of one size also where a gradient is only rounding, as that of a key's bias.
    """
    if count is not None:
        rows = json.loads((ranks / f"reports/{stage}.json").read_text())[count]
        ranks.set(f"{stage}.batch_size", next(size for size in range(5, rows) if rows % size == 1))
    if lora:
        ranks.set(f"{stage}.lora", lora)
    run(ranks, f"{stage}.py", None)
    one = losses(ranks, stage)
    tables = [] if stage == "base" else [f"plots/{stage}.csv"]
    kept(ranks, tmp_path / "one", *tables)
    run(ranks, f"{stage}.py", 2)
    two = losses(ranks, stage)
    assert len(one) >= 3
    torch.testing.assert_close(two, one, atol=1e-5, rtol=0)
    for table in tables:
        assert_close(tmp_path / "one" / table, ranks / table)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sample@rlhf", "evaluate.py"])
def test_two_processes_write_what_one_writes(ranks: World, stage: str) -> None:
    run(ranks, stage, None)
    before = outs(ranks, *FOLDERS)
    run(ranks, stage, 2)
    assert changed(ranks, before) == []


@pytest.mark.slow
def test_unequal_numbers_of_micro_batches_and_few_validation_prompts(ranks: World, tmp_path: Path) -> None:
    """One rank has two micro-batches and no validation prompt, the other one micro-batch and the prompt."""
    for name, value in {
        "batch_size": 3,
        "micro_batch_size": 1,
        "minibatches": 1,
        "ppo_epochs": 2,
        "validation_prompts": 1,
    }.items():
        ranks.set(f"ppo.{name}", value)
    files = ["plots/ppo.csv", "plots/ppo_validation.csv", "models/ppo/model.safetensors"]
    run(ranks, "ppo.py", None)
    one = kept(ranks, tmp_path / "one", *files)
    run(ranks, "ppo.py", 2)
    for file in files:
        assert_close(one / file, ranks / file)


# Faults

FAULT = """
_own_gradients = _gradients

def _gradients(actors, accelerator, experience, minibatch, settings):
    import os, pathlib, time
    calls = pathlib.Path(f"calls-{{rank()}}")
    calls.write_text(calls.read_text() + "." if calls.exists() else ".")
    if rank() == {rank} and len(calls.read_text()) == 3:
        {fault}
    return _own_gradients(actors, accelerator, experience, minibatch, settings)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "fault", "said"),
    [
        (1, "os._exit(3)", ("rank 1", "ended with status 3")),
        (1, "os.kill(os.getpid(), 9)", ("rank 1", "SIGKILL")),
        (0, "os.kill(os.getpid(), 9)", ("rank 0", "SIGKILL")),
        (1, "raise KeyError('no such thing')", ("rank 1", "no such thing")),
        (1, "actors.policy.get_input_embeddings().weight.data[:] = float('nan')", ("rank 1", "policy_loss is nan")),
        (0, "actors.policy.get_input_embeddings().weight.data[:] = float('nan')", ("rank 0", "policy_loss is nan")),
    ],
)
def test_a_rank_that_fails_ends_all(ranks: World, rank: int, fault: str, said: tuple[str, ...]) -> None:
    before = outs(ranks, *FOLDERS)
    add(ranks, "ppo/step.py", FAULT.format(rank=rank, fault=fault))
    begun = time.monotonic()
    lines = [line for line in run(ranks, "ppo.py", 2, status=1).splitlines() if not line.startswith("ppo: reads")]
    assert time.monotonic() - begun < 60
    assert len(lines) == 1, lines
    assert_names(lines[0], *said)
    assert changed(ranks, before) == []


WATCHED = """
def _watch_writes(event, arguments):
    path = str(arguments[0]) if arguments else ""
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    changes = event in ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "shutil.rmtree")
    if (writes or changes) and os.path.abspath(path).startswith({folder!r}) and "__pycache__" not in path:
        os.write(2, f"writes {{path}} ({{event}})".encode())
        os._exit(9)

if rank() == {rank}:
    import sys
    sys.addaudithook(_watch_writes)
"""


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft.py", "ppo.py", "sample@rlhf"])
def test_only_rank_0_writes(ranks: World, stage: str) -> None:
    add(ranks, "engine/ranks.py", WATCHED.format(folder=str(ranks.folder), rank=1))
    run(ranks, stage, 2)


@pytest.mark.slow
def test_the_watch_on_writes_sees_those_of_rank_0(ranks: World) -> None:
    add(ranks, "engine/ranks.py", WATCHED.format(folder=str(ranks.folder), rank=0))
    assert "writes" in run(ranks, "ppo.py", 2, status=9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "fault"),
    [
        pytest.param(0, "time.sleep(1000)", id="the main one sleeps"),
        pytest.param(1, "os.kill(os.getpid(), 19)", id="another one is stopped"),
        pytest.param(1, "time.sleep(1000)", id="another one sleeps", marks=pytest.mark.thorough),
        pytest.param(0, "os.kill(os.getpid(), 19)", id="the main one is stopped", marks=pytest.mark.thorough),
    ],
)
def test_a_rank_that_hangs_ends_all(ranks: World, rank: int, fault: str) -> None:
    add(ranks, "ppo/step.py", FAULT.format(rank=rank, fault=fault))
    launch = ranks / "stages/rlhf_sentiment/engine/launch.py"
    source = launch.read_text()
    for before, after in (
        ("_START, _PATIENCE = 600.0, 60.0", "_START, _PATIENCE = 600.0, 3.0"),
        ("_FACTOR = 10.0", "_FACTOR = 0.1"),
    ):
        assert before in source
        source = source.replace(before, after)
    launch.write_text(source)
    said = run(ranks, "ppo.py", 2, status=1)
    assert_names(said.splitlines()[-1], f"rank {rank} gave no sign of life")


def processes_of(world: World) -> list[psutil.Process]:
    """Return the processes whose current folder is the world."""
    found = []
    for process in psutil.process_iter(["cwd", "cmdline"]):
        if process.info["cwd"] == str(world.folder) and "stages/" in " ".join(process.info["cmdline"] or []):
            found.append(process)
    return found


@pytest.mark.slow
def test_ctrl_c_stops_all_ranks_after_a_checkpoint_and_one_process_resumes(ranks: World, tmp_path: Path) -> None:
    ranks.set("ppo.steps", 6)
    files = ["plots/ppo.csv", "models/ppo/model.safetensors"]
    run(ranks, "ppo.py", None)
    one = kept(ranks, tmp_path / "one", *files)
    shutil.rmtree(ranks / ".checkpoints")
    ranks.set("launcher", 2)
    process = start(ranks, "exec python stages/ppo.py", tmp_path / "log")
    until(lambda: ranks.newest("ppo") == 2, process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(60) == 130
    assert_names((tmp_path / "log").read_text().splitlines()[-1], "stopped by SIGINT")
    assert processes_of(ranks) == []
    reached = ranks.newest("ppo")
    assert 2 <= reached < 6
    ranks.set("launcher", None)
    assert f"goes on from its checkpoint of step {reached}" in ranks.run("python", "stages/ppo.py")
    for file in files:
        assert_close(one / file, ranks / file)


SLOW_DISK = """
_own_seal = _seal

def _seal(folder):
    import time
    time.sleep(12)
    _own_seal(folder)
"""
NAN_LOSS = """
_own_through = through

def through(*inputs):
    found = _own_through(*inputs)
    return found * float("nan") if rank() == 1 else found
"""


@pytest.mark.thorough
def test_ctrl_c_waits_for_a_checkpoint_that_takes_long(ranks: World, tmp_path: Path) -> None:
    add(ranks, "training/checkpoints.py", SLOW_DISK)
    ranks.set("checkpoint_every.sft", 1000)
    ranks.set("sft.epochs", 500)
    shutil.rmtree(ranks / ".checkpoints", ignore_errors=True)
    ranks.set("launcher", 2)
    process = start(ranks, "exec python stages/sft.py", tmp_path / "log")
    live = ranks / "runs/sft/live.csv"
    begun = time.time()
    until(lambda: live.is_file() and live.stat().st_mtime > begun and live.read_text().count("\n") > 3, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(90) == 130
    assert ranks.newest("sft") > 0
    assert_names((tmp_path / "log").read_text().splitlines()[-1], "rank 0", "stopped by SIGINT")


@pytest.mark.slow
def test_the_rank_whose_loss_is_not_finite_says_so(ranks: World) -> None:
    add(ranks, "training/shares.py", NAN_LOSS)
    lines = [line for line in run(ranks, "sft.py", 2, status=1).splitlines() if not line.startswith("sft: reads")]
    assert_names(lines[-1], "sft: rank 1: step 1: loss is nan", "sft.learning_rate")


@pytest.mark.slow
def test_a_run_of_one_process_is_resumed_by_two(ranks: World, tmp_path: Path) -> None:
    for stage, files in (("ppo", ["plots/ppo.csv"]), ("sft", ["plots/sft.csv", "models/sft/model.safetensors"])):
        run(ranks, f"{stage}.py", None)
        one = kept(ranks, tmp_path / "one", *files)
        (folder,) = ranks.folder.glob(f".checkpoints/{stage}/*/")
        newest = sorted(folder.glob("[0-9]*[0-9]"))[-1]
        shutil.rmtree(newest)
        (folder / "outs.json").unlink()
        ranks.set("launcher", 2)
        assert "goes on from its checkpoint" in ranks.run("python", f"stages/{stage}.py")
        for file in files:
            assert_close(one / file, ranks / file)


@pytest.mark.slow
def test_no_rank_outlives_a_launcher_that_was_killed(ranks: World, tmp_path: Path) -> None:
    ranks.set("ppo.steps", 300)
    ranks.set("launcher", 2)
    process = start(ranks, "exec python stages/ppo.py", tmp_path / "log")
    until(lambda: ranks.newest("ppo") >= 1, process)
    assert len(processes_of(ranks)) == 3
    process.kill()
    process.wait()
    until_none = time.monotonic() + 20
    while processes_of(ranks) and time.monotonic() < until_none:
        time.sleep(0.1)
    assert processes_of(ranks) == []


@pytest.mark.slow
def test_dvc_reruns_the_stages_that_have_ranks_where_the_launcher_changes(ranks: World) -> None:
    ranks.set("launcher", 2)
    changed = json.loads(ranks.run("dvc", "status", "--json"))
    named = {stage for stage, changes in changed.items() if "launcher" in json.dumps(changes)}
    assert named == {"check", "base", "sft", "reward", "ppo", "sample@base", "sample@sft", "sample@rlhf", "evaluate"}
    ranks.set("launcher", "docs/scaling/ddp.yaml")
    assert "ppo: wrote" in ranks.run("dvc", "repro", "--single-item", "--force", "ppo")


@pytest.mark.slow
def test_two_machines_equal_one(ranks: World, tmp_path: Path) -> None:
    """Two launchers, which SLURM would start on two machines, here in one folder. Only the first machine writes."""
    files = ["plots/ppo.csv", "models/ppo/model.safetensors"]
    run(ranks, "ppo.py", None)
    one = kept(ranks, tmp_path / "one", *files)
    shutil.rmtree(ranks / ".checkpoints")
    tree = yaml.safe_load((ROOT / "docs/scaling/two-machines.yaml").read_text())
    tree |= {"num_processes": 2, "main_process_ip": "127.0.0.1", "main_process_port": int(environments_of(2)[0]["MASTER_PORT"])}
    (ranks / "machines.yaml").write_text(yaml.safe_dump(tree))
    ranks.set("launcher", "machines.yaml")
    processes = [
        start(World(ranks.folder, {"SLURM_NODEID": str(node)}), "exec python stages/ppo.py", tmp_path / f"log-{node}")
        for node in (0, 1)
    ]
    assert [process.wait(120) for process in processes] == [0, 0]
    assert (tmp_path / "log-1").read_text() == ""
    assert "ppo: wrote" in (tmp_path / "log-0").read_text()
    for file in files:
        assert_close(one / file, ranks / file)


@pytest.mark.thorough
def test_four_processes_equal_one(ranks: World, tmp_path: Path) -> None:
    files = ["plots/ppo.csv", "models/ppo/model.safetensors"]
    run(ranks, "ppo.py", None)
    one = kept(ranks, tmp_path / "one", *files)
    run(ranks, "ppo.py", 4)
    for file in files:
        assert_close(one / file, ranks / file)
