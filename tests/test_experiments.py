"""Experiments: the keys of `dvc exp run -S` are checked, the queue runs the queued code, and docs/experiments.md is right."""

import os
import re
import runpy
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import ROOT, World, assert_names, checkout, outs, the_error, tiny_params

TOOL = runpy.run_path(str(ROOT / "tools/set_param.py"))
TREE: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
PAGE = (ROOT / "docs/experiments.md").read_text()

WRONG = [
    ("ppo.stepz=3", "-S ppo.stepz: unknown key; did you mean ppo.steps?"),
    ("+ppo.stepz=3", "-S +ppo.stepz: unknown key; did you mean ppo.steps?"),
    ("++ppo.stepz=3", "-S ++ppo.stepz: unknown key; did you mean ppo.steps?"),
    ("~ppo.stepz", "-S ~ppo.stepz: unknown key; did you mean ppo.steps?"),
    ("params.yaml:ppo.stepz=3", "-S params.yaml:ppo.stepz: unknown key; did you mean ppo.steps?"),
    ("ppo.stepz=1,2", "-S ppo.stepz: unknown key; did you mean ppo.steps?"),
    ("ppo.stepz=range(1,9)", "-S ppo.stepz: unknown key; did you mean ppo.steps?"),
    ("data.hub.datset=a/b", "-S data.hub.datset: unknown key; did you mean data.hub.dataset?"),
    ("pppo.steps=3", "-S pppo.steps: unknown key; did you mean ppo.steps?"),
    ("eval.num_samples=3", "-S eval.num_samples: unknown key; did you mean evaluate.num_samples?"),
    ("steps=3", "-S steps: unknown key; did you mean ppo.steps?"),
    ("use_wandb=true", "-S use_wandb: unknown key; did you mean report_to?"),
    ("output_dir=x", "-S output_dir: unknown key; results are in metrics/, plots/ and reports/"),
    ("nothing=3", "-S nothing: unknown key; params.yaml lists all keys"),
    ("ppo=200", "-S ppo: is a section; set one of its keys, such as ppo.steps"),
    ("data.hub=x", "-S data.hub: is a section; set one of its keys, such as data.hub.dataset"),
    ("ppo.steps", "-S ppo.steps: has no value; write -S ppo.steps=VALUE"),
    ("~ppo.steps", "-S ~ppo.steps: params.yaml needs every key; write -S ppo.steps=VALUE"),
    ("~ppo.steps=30", "-S ~ppo.steps: params.yaml needs every key; write -S ppo.steps=VALUE"),
    ("ppo.steps.x=3", "-S ppo.steps.x: ppo.steps is a value, not a section"),
]
LEFT_TO_DVC = [
    "ppo.steps=200",
    "ppo.steps=abc",
    "ppo={steps: 3}",
    "ppo.steps=1,2",
    "seed=range(1,4)",
    "report_to=[tensorboard]",
    "base.model=a:b=c",
    "~data.columns.text",
    "+ppo.steps=3",
    "data.columns=3",
    "+data.columns.text=review",
    "data.labels={negative: [1], positive: [2]}",
    "+data.labels.negative=[1]",
    "other.yaml:ppo.stepz=3",
]


@pytest.fixture
def with_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Install the check in an environment that has nothing else, and return its PATH."""
    folder = tmp_path / "an environment/bin"
    folder.mkdir(parents=True)
    (folder / "dvc").write_text("DVC's own")
    monkeypatch.setattr(sys, "prefix", str(folder.parent))
    TOOL["install"]()
    monkeypatch.undo()
    return f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"


@pytest.mark.parametrize(("override", "said"), WRONG)
def test_a_wrong_key_gets_the_hint_of_the_project(override: str, said: str) -> None:
    assert TOOL["faults"]([override, "seed=1"], TREE) == [said]


@pytest.mark.parametrize("override", LEFT_TO_DVC)
def test_all_else_is_left_to_dvc(override: str) -> None:
    assert TOOL["faults"]([override], TREE) == []


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("exp run -S a=1", ["a=1"]),
        ("exp run -Sa=1 --set-param b=2 --set-param=c=3 --set d=4 --queue -n name target", ["a=1", "b=2", "c=3", "d=4"]),
        ("-v experiments run -f -S a=1", ["a=1"]),
        ("--cd elsewhere exp run -S a=1", ["a=1"]),
        ("exp run", []),
        ("exp run -S", []),
        ("exp show -S a=1", []),
        ("stage add -n x exp run -S a=1", []),
        ("", []),
    ],
)
def test_the_options_are_read_as_dvc_reads_them(line: str, found: list[str]) -> None:
    overrides, folder = TOOL["asked"](line.split())
    assert overrides == found
    assert folder == Path("elsewhere" if "--cd" in line else ".")


def test_the_command_dvc_checks_keys_and_then_runs_dvc(tmp_path: Path, with_check: str) -> None:
    world = checkout(tmp_path / "repository", tiny_params(), {"PATH": with_check})
    before = outs(world, ".")
    said = world.run("dvc", "exp", "run", "-S", "ppo.stepz=3", "-S", "sead=2", status=2)
    faults = ("ppo.stepz: unknown key; did you mean ppo.steps?", "sead: unknown key; did you mean seed?")
    assert said.splitlines() == [f"dvc exp run: -S {fault}" for fault in faults]
    said = world.run("bash", "-c", "cd docs; dvc exp run -S ppo.steps=3", status=2)
    assert_names(said, "run the command in", str(world.folder))
    assert outs(world, ".") == before, "nothing was written"

    with_it, without_it = (world.run(*command, "--version") for command in (("dvc",), ("python", "-m", "dvc")))
    assert with_it == without_it
    assert_names(world.run("python", "-m", "dvc", "exp", "run", "-S", "ppo.stepz=3", status=255), "append")
    assert_names(world.run("dvc", "exp", "run", "-S", "other.yaml:a=3", status=255), "append")
    assert_names(world.run("dvc", "exp", "run", "-S", status=254), "expected one argument")

    (world / "params.yaml").write_text("a: [")
    assert_names(world.run("dvc", "exp", "run", "-S", "a=1", status=255), "params.yaml")
    elsewhere = World(tmp_path / "elsewhere", {"PATH": with_check})
    elsewhere.folder.mkdir()
    elsewhere.run("git", "init", "-q")
    elsewhere.run("dvc", "init", "-q")
    (elsewhere / "params.yaml").write_text("a: 1\n")
    assert "unknown key" not in elsewhere.run("dvc", "exp", "run", "-S", "ppo.stepz=3", status=255)


def test_the_check_is_installed_in_an_environment_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "bin/dvc"
    own.parent.mkdir()
    own.write_text("DVC's own")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path))
    TOOL["install"]()
    assert own.read_text() == "DVC's own"
    monkeypatch.setattr(sys, "base_prefix", "/usr")
    for _ in range(2):
        TOOL["install"]()
        assert_names(own.read_text(), "set_param.py", "python -m dvc")
        assert [file.name for file in own.parent.iterdir()] == ["dvc"]
        assert os.access(own, os.X_OK)


def test_the_command_dvc_works_at_a_commit_without_the_check(tmp_path: Path, with_check: str) -> None:
    script = Path(with_check.split(":")[0]) / "dvc"
    script.write_text(script.read_text().replace("set_param.py'", "absent.py'"))
    said = [
        subprocess.run([*command, "--version"], capture_output=True, text=True, check=True).stdout
        for command in ([script], [sys.executable, "-m", "dvc"])
    ]
    assert said[0] == said[1]


@pytest.mark.slow
def test_a_wrong_value_is_answered_by_check(tmp_path: Path) -> None:
    world = checkout(tmp_path / "repository", tiny_params())
    said = world.run("dvc", "exp", "run", "--temp", "-S", "ppo.steps=abc", status=255)
    assert_names(the_error("check", said), "params.yaml", "ppo.steps", "'abc'")
    assert world.stages_run(said) == ["check"]


def wait_for_the_queue(world: World) -> str:
    """Wait until all experiments of the queue have ended, stop its workers, and return what `dvc queue status` printed."""
    for _ in range(200):
        said = world.run("dvc", "queue", "status")
        if "Queued" not in said and "Running" not in said:
            world.run("dvc", "queue", "stop")
            return said
        time.sleep(1)
    raise AssertionError(said)


def experiments(world: World) -> set[str]:
    return set(world.run("dvc", "exp", "list", "--name-only").split())


@pytest.mark.slow
def test_a_queued_experiment_runs_the_queued_code_and_runs_once(world: World, with_check: str) -> None:
    world.variables["PATH"] = with_check
    change = ("-S", "evaluate.confidence=0.9")
    assert_names(world.run("dvc", "exp", "run", "--queue", "--name", "queued", *change), "Queued experiment 'queued'")
    script = world / "stages/evaluate.py"
    script.write_text("raise SystemExit('edited after it was queued')\n")
    world.run("dvc", "queue", "start", "-j", "2")
    assert re.search(r"\bqueued\b.*\bSuccess\b", wait_for_the_queue(world))
    log = world.run("dvc", "queue", "logs", "queued")
    assert world.stages_run(log) == ["check", "evaluate"]
    assert "edited" not in log

    world.run("git", "checkout", "-q", ".")
    said = world.run("dvc", "exp", "run", "--name", "again", *change)
    assert world.stages_run(said) == []
    assert_names(said, "Stage 'evaluate' is cached - skipping run")
    results = outs(world, "metrics", "plots", "reports")
    assert experiments(world) == {"queued", "again"}

    world.run("git", "checkout", "-q", ".")
    world.run("dvc", "checkout")
    assert outs(world, "metrics", "plots", "reports") != results
    world.run("dvc", "exp", "apply", "queued")
    assert outs(world, "metrics", "plots", "reports") == results
    world.run("dvc", "exp", "branch", "queued", "narrow")
    assert yaml.safe_load(world.run("git", "show", "narrow:params.yaml"))["evaluate"]["confidence"] == 0.9
    world.run("dvc", "exp", "remove", "queued", "again")
    assert experiments(world) == set()
    assert "narrow" in world.run("git", "branch")


@pytest.mark.thorough
def test_a_fresh_clone_runs_experiments(finished_world: World, tmp_path: Path, with_check: str) -> None:
    """No cache and no remote: in the workspace, in a copy, and two seeds at once in the queue."""
    subprocess.run(["git", "clone", "-q", finished_world.folder, tmp_path / "clone"], check=True)
    clone = World(tmp_path / "clone", {"PATH": with_check})
    said = clone.run("dvc", "exp", "run", "--name", "long", "-S", "ppo.steps=200")
    assert len(clone.stages_run(said)) == 12
    assert len((clone / "plots/ppo.csv").read_text().splitlines()) == 201
    clone.run("git", "checkout", "-q", ".")

    said = clone.run("dvc", "exp", "run", "--temp", "--name", "gentle", "-S", "ppo.kl_coef=0.1")
    assert clone.stages_run(said) == ["check", "ppo", "sample@rlhf", "evaluate"]
    assert clone.run("git", "status", "--short") == "", "the workspace stays"
    said = clone.run("dvc", "exp", "run", "--queue", "--name", "seed", "-S", "seed=2,3")
    assert_names(said, "Queued experiment 'seed-1'", "Queued experiment 'seed-2'")
    clone.run("dvc", "queue", "start", "-j", "2")
    done = wait_for_the_queue(clone)
    metrics = set()
    for name, seed in (("seed-1", 2), ("seed-2", 3)):
        assert re.search(rf"\b{name}\b.*\bSuccess\b", done)
        log = clone.run("dvc", "queue", "logs", name)
        assert clone.stages_run(log)[-5:] == ["ppo", "sample@base", "sample@sft", "sample@rlhf", "evaluate"]
        shown = clone.run("git", "show", f"{revision(clone, name)}:params.yaml")
        assert yaml.safe_load(shown)["seed"] == seed
        metrics.add(clone.run("git", "show", f"{revision(clone, name)}:metrics/evaluation.json"))
    assert len(metrics) == 2
    assert experiments(clone) == {"long", "gentle", "seed-1", "seed-2"}
    clone.run("dvc", "exp", "apply", "seed-1")
    assert yaml.safe_load((clone / "params.yaml").read_text())["seed"] == 2
    clone.run("dvc", "exp", "branch", "seed-1", "another-seed")
    clone.run("dvc", "exp", "remove", "seed-1", "seed-2", "gentle", "long")
    assert experiments(clone) == set()
    assert "another-seed" in clone.run("git", "branch")


def revision(world: World, experiment: str) -> str:
    """Return the commit of an experiment."""
    return world.run("git", "for-each-ref", "--format=%(objectname)", f"refs/exps/*/*/{experiment}").strip()


def test_the_commands_of_the_page_are_read_by_dvc_and_run_by_a_test() -> None:
    from dvc.cli import parse_args

    commands = [shlex.split(line) for line in re.findall(r"^    \$ dvc (.+)$", PAGE, re.MULTILINE)]
    tests = Path(__file__).read_text()
    assert len(commands) >= 8
    for words in commands:
        parse_args(words)
        overrides, _ = TOOL["asked"](words)
        assert TOOL["faults"](overrides, TREE) == [] or "ppo.stepz=3" in overrides
        verb = '", "'.join(words[:2])
        assert f'"{verb}"' in tests, words
