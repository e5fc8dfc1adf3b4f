"""`make seeds`: runs in a copy, stops and goes on, and keeps results from which the page is made."""

import gzip
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest

import seed_page
import seed_results
import seeds
from pipeline_copy import alone, copied, run
from rlhf_sentiment.engine.errors import StageError

from .conftest import ROOT, World, assert_names

COMMIT = "0123456789abcdef0123456789abcdef01234567"
# A pipeline that DVC runs in a second. `train` writes a line a step, and stops at a signal. After the first step of seed 2, it
# waits until the file GATE is there.
TRAIN = """
import json, os, signal, sys, time, yaml
seed = yaml.safe_load(open("params.yaml"))["seed"]
log = open(os.path.join(os.environ["DVC_ROOT"], "runs/trained"), "a")
signal.signal(signal.SIGINT, lambda *_: sys.exit("train: stopped"))
for step in range(3):
    while step and seed == 2 and not os.path.exists(os.environ["GATE"]):
        time.sleep(0.05)
    print(seed, step, file=log, flush=True)
if seed == 13:
    sys.exit("train: 13 is unlucky")
os.makedirs("metrics", exist_ok=True)
json.dump({"improvement_over_sft": {"mean_positive": seed / 10}}, open("metrics/evaluation.json", "w"))
"""
PIPELINE = """
stages:
  train:
    cmd: python stages/train.py
    deps: [stages/train.py]
    params: [seed]
    metrics: [{metrics/evaluation.json: {cache: false}}]
"""


@pytest.fixture
def small(tmp_path: Path) -> World:
    """Return a repository with a small pipeline, with edits that are not committed, and with the tools."""
    world = World(tmp_path / "small")
    shutil.copytree(ROOT / ".dvc", world / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache", "config.local"))
    shutil.copytree(ROOT / "tools", world / "tools", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "stages/rlhf_sentiment", world / "stages/rlhf_sentiment")
    for name in (".gitignore", "stages/mend.py"):
        shutil.copy(ROOT / name, world / name)
    (world / "dvc.yaml").write_text(PIPELINE)
    (world / "stages/train.py").write_text(TRAIN)
    (world / "params.yaml").write_text("# The seed.\nseed: 0\n")
    (world / "gone.txt").write_text("")
    world.run("git", "init", "-q", "-b", "main")
    world.commit("a small pipeline")
    (world / "params.yaml").write_text("# My seed.\nseed: 0\n")
    (world / "gone.txt").unlink()
    (world / "stages/new.py").write_text("")
    (world / "data/raw/mine").mkdir(parents=True)
    (world / "data/raw/mine/a.csv").write_text("text,label\n")
    return world


def state(world: World) -> dict[str, str]:
    """Return what a user has in a repository: files, and what git says of them."""
    names = world.run("git", "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    files = {name: (world / name).read_text() for name in names if (world / name).is_file() and "__pycache__" not in name}
    return files | {"status": world.run("git", "status", "--porcelain", "--branch"), "stash": world.run("git", "stash", "list")}


@pytest.mark.slow
def test_the_copy_has_edits_and_ignored_files_and_the_workspace_stays(small: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HOME", "XDG_CONFIG_HOME"):  # git does not know the user
        monkeypatch.setenv(variable, str(small / "runs"))
    before = state(small)
    with alone("seeds", small / "runs/seeds") as lock:
        copy = copied(small.folder, small / "runs/seeds/copy", lock)
        run(copy, {"seed": 3}, "seeds-3", small / "runs/seeds/3.log", print)
    assert state(small) == before
    assert copy.params == "# My seed.\nseed: 0\n"
    assert (copy.folder / "params.yaml").read_text() == "# My seed.\nseed: 3\n"
    assert (copy.folder / "stages/new.py").is_file()
    assert (copy.folder / "data/raw/mine/a.csv").is_file()
    assert not (copy.folder / "gone.txt").exists()
    assert copy.commit.endswith("-dirty")
    small.run("git", "stash", "-q", "-u")
    assert small.run("dvc", "exp", "list", "--name-only").split()[-1] == "seeds-3"
    small.run("dvc", "exp", "apply", "seeds-3")
    assert json.loads((small / "metrics/evaluation.json").read_text()) == {"improvement_over_sft": {"mean_positive": 0.3}}


def start(world: World, *words: str, gate: str = "params.yaml") -> subprocess.Popen[str]:
    environment = world.environment() | {"GATE": str(world / gate)}
    return subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, 'tools'); {RUN}", *words],
        cwd=world.folder, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


# Train seeds, and keep only their metrics: the small pipeline has no answers.
RUN = (
    "import seeds; from pathlib import Path; from rlhf_sentiment.engine.stopping import listen; listen('seeds'); "
    "seeds.keep = lambda root, ran, seed, commit: (root / f'runs/kept-{seed}').write_bytes((ran / 'dvc.lock').read_bytes()); "
    "from rlhf_sentiment.engine.errors import one_line_errors\n"
    "with one_line_errors('seeds'): print(seeds.train(Path.cwd(), [int(word) for word in sys.argv[1:]]))"
)


def wait_for(done: Callable[[], bool], minutes: int = 1) -> None:
    for _ in range(600 * minutes):
        if done():
            return
        time.sleep(0.1)
    raise AssertionError(f"waited {minutes} min")


def steps(world: World) -> list[str]:
    return (world / "runs/trained").read_text().splitlines() if (world / "runs/trained").is_file() else []


@pytest.mark.slow
def test_a_failed_seed_does_not_lose_the_others_and_what_ran_is_not_run_again(small: World) -> None:
    said = start(small, "1", "13", "2").communicate()[0]
    assert said.splitlines()[-1] == "[13]"
    (line,) = [line for line in said.splitlines() if "failed" in line]
    assert_names(line, "seeds: seed 13 failed: train: 13 is unlucky", "runs/seeds/13.log")
    assert "seed 2: RLHF - SFT = +0.200 in mean P(positive)" in said
    assert sorted(path.name for path in (small / "runs").glob("kept-*")) == ["kept-1", "kept-2"]
    ran = steps(small)
    assert start(small, "1", "2").communicate()[0].splitlines()[-1] == "[]"
    assert steps(small) == ran, "the run cache has both"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.thorough), signal.SIGKILL])
def test_a_run_that_is_stopped_or_killed_goes_on(small: World, number: signal.Signals) -> None:
    """After SIGINT and SIGTERM nothing works any more. After SIGKILL the next run waits for the dvc that is left."""
    process = start(small, "1", "2", gate="runs/gate")
    wait_for(lambda: "2 0" in steps(small))
    process.send_signal(number)
    said = process.communicate()[0] if number != signal.SIGKILL else ""
    assert process.wait() == (-number if number == signal.SIGKILL else 128 + number), said
    again = start(small, "1", "2")
    assert again.stdout
    if number == signal.SIGKILL:
        assert "waits for an earlier run" in again.stdout.readline()
        (small / "runs/gate").touch()
    else:
        assert f"stopped by {number.name}" in said.splitlines()[-1]
    said = again.communicate()[0]
    assert said.splitlines()[-1] == "[]", said
    assert "waits for an earlier run" not in said
    assert steps(small).count("1 0") == 1
    assert steps(small).count("2 2") == 1, "a dvc that was left finished its seed, or the new one did"


def test_each_says_how_long_is_left(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds 1 and 4 come from the run cache in 10 s. Seeds 2 and 3 run for 10 and 20 minutes. Seed 5 fails."""
    clock = iter([0.0, 10.0, 10.0, 610.0, 610.0, 1810.0, 1810.0, 1820.0, 1820.0])  # begin and end of each seed

    def train_one(seed: int) -> seeds.Trained:
        if seed == 5:
            raise StageError("no memory")
        return seeds.Trained(f"seed {seed} is good", restored=seed in (1, 4))

    monkeypatch.setattr("seeds.time.monotonic", lambda: next(clock))
    assert seeds.each([1, 2, 3, 4, 5], train_one) == [5]
    said = capsys.readouterr()
    assert [line.partition("is good; ")[2] for line in said.out.splitlines() if "good" in line] == [
        "took 10 s", "took 10 min; about 30 min left", "took 20 min; about 30 min left", "took 10 s; about 15 min left"
    ]  # fmt: skip
    assert said.err == "seeds: seed 5 failed: no memory\n"


@pytest.mark.parametrize(("seconds", "words"), [(40, "40 s"), (300, "5 min"), (7500, "2 h 05 min"), (3600, "60 min")])
def test_durations_are_in_words(seconds: float, words: str) -> None:
    assert seeds.duration(seconds) == words


def ran(folder: Path, seed: int, shift: float = 0.0, prompts: int = 4) -> Path:
    """Write what a run leaves: P(positive) of a contestant is 0.2, 0.4 or 0.8, plus `shift` and a hundredth a prompt."""
    means = {"base": 0.2, "sft": 0.4, "rlhf": 0.8}
    for name in ("metrics", "plots", "reports"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "dvc.lock").write_text(f"seed: {seed}")
    metrics = {"rlhf": {"kl_to_sft": 3.0 + seed, "samples": 8}, "note": "words", "list": [1], "flag": True}
    (folder / "metrics/evaluation.json").write_text(json.dumps(metrics))
    (folder / "metrics/reward.json").write_text('{"accuracy": 0.75}')
    steps = {"step": [1, 2], "score": [0.1 * seed, 0.5], "kl_penalty": [0.0, 1.0], "entropy": [3.0, 2.5]}
    pd.DataFrame(steps).to_csv(folder / "plots/ppo.csv", index=False)
    pd.DataFrame({"step": [2], "score": [0.4], "kl": [1.5]}).to_csv(folder / "plots/ppo_validation.csv", index=False)
    rows = [
        {"prompt": f"prompt {k}", "model": model, "sample": sample, "classifier_positive": mean + shift + k / 100 + sample / 50}
        for model, mean in means.items()
        for k in range(prompts)
        for sample in (0, 1)
    ]
    pd.DataFrame(rows).to_csv(folder / "reports/answers.csv.gz", index=False)
    return folder


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Return a repository that keeps three seeds."""
    for seed, shift in ((3, 0.02), (1, -0.02), (2, 0.0)):
        seed_results.keep(tmp_path, ran(tmp_path / "ran", seed, shift), seed, COMMIT)
    return tmp_path


def test_a_row_has_all_numbers_and_a_new_row_takes_the_place_of_the_old(kept: Path) -> None:
    rows = seed_results.read(kept, seed_results.TABLE)
    assert list(rows) == ["seed", "commit", "lock", "evaluation.rlhf.kl_to_sft", "evaluation.rlhf.samples", "reward.accuracy"]
    assert rows["seed"].tolist() == [1, 2, 3]
    assert rows["evaluation.rlhf.kl_to_sft"].tolist() == [4.0, 5.0, 6.0]
    assert rows["lock"][0] == "ecf99311350a9cfc4abca0866f9fb04a"  # printf 'seed: 1' | md5sum
    seed_results.keep(kept, ran(kept / "ran", 2, prompts=3), 2, "1e5".ljust(40, "0"))
    rows = seed_results.read(kept, seed_results.TABLE)
    assert rows["commit"].tolist() == [COMMIT, "1e5".ljust(40, "0"), COMMIT], "no number"
    curves = seed_results.read(kept, seed_results.CURVES)
    assert len(curves) == 3 * (3 * 2 + 2 * 1)
    scores = curves[(curves["curve"] == "score") & (curves["step"] == 1)]
    assert dict(zip(scores["seed"], scores["value"], strict=True)) == {1: 0.1, 2: 0.2, 3: 0.3}


def test_the_page_has_the_statistics(kept: Path) -> None:
    """P(positive) of base is 0.2 + 0.015 (the mean over prompts) + 0.01 (over answers), and the seeds differ by 0.02."""
    seed_page.write_page(kept)
    lines = (kept / "docs/results/seeds.md").read_text().splitlines()
    cells = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:-1]] for line in lines if line.startswith("|")
    }
    assert cells["Base"][:5] == ["0.225", "0.020", "0.205", "0.245", "0.225"]
    assert cells["RLHF - SFT"] == ["0.400", "0.000", "0.400", "0.400", "0.400", "[0.400, 0.400]"]
    assert cells["KL of RLHF from SFT (nats per response)"] == ["5.000", "1.000", "4.000", "6.000", "5.000"]
    assert cells["2"][:3] == ["0.225", "0.425", "0.825"]
    text = " ".join(lines)
    assert_names(
        text, COMMIT, "3 seeds", "4 prompts", "rough", "Owen 2007", "seeds/curves.png", "ecf99311350a9cfc4abca0866f9fb04a"
    )


def test_the_same_results_give_the_same_page(kept: Path) -> None:
    def pages() -> list[bytes]:
        seed_page.write_page(kept)
        return [(kept / path).read_bytes() for path in (seed_page.PAGE, seed_page.FIGURE)]

    assert pages() == pages()


def test_the_page_is_made_from_rows_of_an_older_version(kept: Path) -> None:
    """A row of another commit may lack metrics, contestants and prompts."""
    folder = ran(kept / "old", 4, prompts=3)
    (folder / "metrics/reward.json").unlink()
    answers = pd.read_csv(folder / "reports/answers.csv.gz")
    answers[answers["model"] != "sft"].to_csv(folder / "reports/answers.csv.gz", index=False)
    seed_results.keep(kept, folder, 4, "f" * 40)
    seed_page.write_page(kept)
    text = (kept / "docs/results/seeds.md").read_text()
    assert_names(text, "different commits", "fffffff", "3 prompts", "RLHF - Base")
    assert "RLHF - SFT" not in text


def test_seeds_without_a_common_prompt_are_refused_in_one_line(kept: Path) -> None:
    answers = pd.read_csv(seed_results.answers_file(kept, 2))
    answers.assign(prompt="another " + answers["prompt"]).to_csv(seed_results.answers_file(kept, 2), index=False)
    with pytest.raises(StageError) as error:
        seed_page.write_page(kept)
    assert_names(error.value, "seeds.csv", "no prompt in common", "make seeds")


def test_one_seed_says_nothing_about_other_seeds(tmp_path: Path) -> None:
    seed_results.keep(tmp_path, ran(tmp_path / "ran", 1), 1, COMMIT + "-dirty")
    seed_page.write_page(tmp_path)
    text = (tmp_path / "docs/results/seeds.md").read_text()
    assert_names(text, "This seed trains", "With one seed", "`-dirty` means")
    assert "nan" not in text


def edit(name: str, old: str, new: str) -> Callable[[Path], Any]:
    """Return an edit of a kept table."""

    def change(kept: Path) -> None:
        path = kept / "docs/results" / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new, 1))

    return change


def bad_answers(kept: Path, content: bytes) -> None:
    seed_results.answers_file(kept, 2).write_bytes(gzip.compress(content))


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda kept: (kept / "docs/results/seeds.csv").unlink(), ("docs/results/seeds.csv", "make seeds")),
        (lambda kept: (kept / "docs/results/seeds/answers-2.csv.gz").unlink(), ("answers-2.csv.gz", "make seeds SEEDS=2")),
        (lambda kept: (kept / "docs/results/seeds/answers-2.csv.gz").write_bytes(b"x"), ("answers-2.csv.gz", "damaged")),
        (lambda kept: (kept / "docs/results/seeds.csv").write_text("a,b"), ("seeds.csv", "seed")),
        (lambda kept: (kept / "docs/results/seeds/curves.csv").unlink(), ("curves.csv", "make seeds")),
        (lambda kept: (kept / "docs/results/seeds.csv").write_text(""), ("seeds.csv", "not a CSV", "make seeds")),
        (
            lambda kept: (kept / "docs/results/seeds.csv").write_bytes(b"\xff"),
            ("seeds.csv", "git checkout docs/results/seeds.csv"),
        ),
        (edit("seeds.csv", "\n2,", "\ntwo,"), ("docs/results/seeds.csv, line 3: seed is 'two'",)),
        (edit("seeds.csv", "\n2,", "\n-2,"), ("docs/results/seeds.csv, line 3: seed is '-2'",)),
        (edit("seeds.csv", "\n2,", "\n,"), ("docs/results/seeds.csv, line 3: seed is ''",)),
        (
            edit("seeds.csv", "\n2,", "\n1,"),
            ("docs/results/seeds.csv, line 3: seed is '1', and an earlier line has the same seed",),
        ),
        (edit("seeds.csv", "5.0,", "xx,"), ("seeds.csv, line 3: evaluation.rlhf.kl_to_sft is 'xx'", "make seeds")),
        (edit("seeds.csv", "5.0,", "inf,"), ("seeds.csv, line 3: evaluation.rlhf.kl_to_sft is 'inf'",)),
        (edit("seeds.csv", f"\n3,{COMMIT}", "\n3,"), ("seeds.csv, line 4: commit is ''",)),
        (edit("seeds.csv", "\n2,", "\n<<<<<<< HEAD\n2,"), ("seeds.csv, line 3: seed is '<<<<<<< HEAD'",)),
        (
            edit("seeds/curves.csv", "\n1,entropy,2,", "\n1,entropy,1,"),
            ("curves.csv, line 3: seed is '1', and an earlier line has the same seed and curve and step",),
        ),
        (
            lambda kept: bad_answers(kept, b"prompt,model,sample,classifier_positive\na,rlhf,0,x\n"),
            ("line 2: classifier_positive is 'x'", "make seeds SEEDS=2"),
        ),
        (
            lambda kept: seed_results.answers_file(kept, 2).write_bytes(gzip.compress(b"a" * 99)[:-12] + b"?" * 12),
            ("answers-2.csv.gz: damaged", "make seeds SEEDS=2"),
        ),
    ],
)
def test_a_missing_or_damaged_result_is_named(kept: Path, damage: Callable[[Path], Any], named: tuple[str, ...]) -> None:
    damage(kept)
    with pytest.raises(StageError) as error:
        seed_page.write_page(kept)
    assert_names(error.value, *named)


def test_rows_of_other_commits_are_reported(kept: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seeds.report_others(kept, [1, 2], "f" * 40)
    replaced, stay = capsys.readouterr().out.splitlines()
    assert_names(replaced, "seed 1, 2", "0123456", "not to fffffff", "replaced")
    assert_names(stay, "seed 3", "stay")
    seeds.report_others(kept, [1, 2], COMMIT)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "named"),
    [([], "name seeds"), (["1", "--page"], "name seeds"), (["-1"], "-1"), (["x"], "'x'"), (["4294967296"], "4294967295")],
)
def test_a_wrong_command_line_gets_one_line(
    words: list[str], named: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["seeds.py", *words])
    with pytest.raises(SystemExit) as ended:
        seeds.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert_names(line, named)


@pytest.mark.slow
def test_a_seed_of_the_tiny_world_is_restored_and_kept(world: World) -> None:
    """The finished world has run its seed, so no stage runs. Results and page come from the run cache."""
    said = world.run(sys.executable, "tools/seeds.py", "1")
    assert "seed 1: ppo" not in said
    assert "wrote docs/results/seeds.md" in said
    (row,) = seed_results.read(world.folder, seed_results.TABLE).to_dict("records")
    metrics = json.loads((world / "metrics/evaluation.json").read_text())
    assert row["evaluation.rlhf.mean_positive"] == metrics["rlhf"]["mean_positive"]
    assert row["lock"] == world.run("md5sum", "dvc.lock").split()[0]
    assert row["commit"] == world.run("git", "rev-parse", "HEAD").strip()
    kept = seed_results.answers_file(world.folder, 1).read_bytes()
    assert kept == (world / "reports/answers.csv.gz").read_bytes()
    positive = seed_results.read_answers(world.folder, 1).groupby("model")["classifier_positive"].mean()
    assert np.isclose(positive["rlhf"], metrics["rlhf"]["mean_positive"], atol=1e-4)
    assert sorted(line.split()[1] for line in world.run("git", "status", "--porcelain").splitlines()) == [
        "docs/results/seeds.csv", "docs/results/seeds.md", "docs/results/seeds/"
    ]  # fmt: skip


@pytest.mark.thorough
def test_two_seeds_of_the_tiny_world_end_with_the_same_results_after_a_kill_in_training(world: World, tmp_path: Path) -> None:
    """Seed 1 comes from the run cache. The tool, its dvc and the stage are killed while seed 2 trains."""
    world.set("ppo.steps", 20)
    world.run("dvc", "repro")
    world.commit("more steps")
    shutil.copytree(world.folder, tmp_path / "whole", symlinks=True)
    whole = World(tmp_path / "whole")
    whole.set("seed", 2)
    whole.run("dvc", "repro")

    command = [sys.executable, "tools/seeds.py", "1", "2"]
    process = subprocess.Popen(
        command, cwd=world.folder, env=world.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(lambda: world.newest("ppo") >= 5, minutes=5)
    finally:
        for killed in [*psutil.Process(process.pid).children(recursive=True), process]:
            killed.kill()
    assert process.wait() == -signal.SIGKILL
    (row,) = seed_results.read(world.folder, seed_results.TABLE).to_dict("records")
    assert row["seed"] == 1

    said = world.run(*command)
    assert [line for line in said.splitlines() if line.startswith("seeds: seed 1: ") and ";" not in line] == [
        "seeds: seed 1: 1 of 2"
    ]
    assert "seeds: seed 2: base" not in said, "it has run before the kill"
    assert re.search(r"^ppo: .*checkpoint.* step \d+", (world / "runs/seeds/2.log").read_text(), re.MULTILINE)
    rows = seed_results.read(world.folder, seed_results.TABLE)
    assert rows["seed"].tolist() == [1, 2]
    assert rows["lock"].tolist() == [one.run("md5sum", "dvc.lock").split()[0] for one in (world, whole)]
    assert seed_results.answers_file(world.folder, 2).read_bytes() == (whole / "reports/answers.csv.gz").read_bytes()
    assert_names((world / "docs/results/seeds.md").read_text(), "Each of these 2 seeds")
