"""`make metrics` and `make experiments`: what they print fits a terminal, and a wrong call gives one line."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .closure import ROOT

sys.path.insert(0, str(ROOT / "tools"))
from experiments import changed, rows_of, settings_of, table

OF_MODEL = {
    "mean_positive": 0.475,
    "positive_ratio": 0.476,
    "lexicon_positive": 0.588,
    "reward": -0.337,
    "perplexity": 3.571,
    "distinct_2": 0.091,
    "response_tokens": 33.86,
    "samples": 1200,
}
GAIN = {
    "mean_positive": 0.451,
    "ci_low": 0.4237,
    "ci_high": 0.4776,
    "positive_ratio": 0.482,
    "positive_ratio_ci_low": 0.452,
    "positive_ratio_ci_high": 0.511,
}
TREE: dict[str, Any] = {
    "base": OF_MODEL,
    "sft": OF_MODEL | {"mean_positive": 0.491},
    "rlhf": OF_MODEL | {"mean_positive": 0.942, "kl_to_sft": 0.9179, "distinct_2": 0.076},
    "improvement": GAIN | {"mean_positive": 0.466},
    "improvement_over_sft": GAIN,
}


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments], cwd=folder, check=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with a commit without metrics, one of an older shape, one with metrics, and later figures."""
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "params.yaml").write_text("evaluate: {confidence: 0.9}\n")
    (tmp_path / "metrics").mkdir()
    older = {name: {"mean_positive": TREE[name]["mean_positive"], "note": "words"} for name in ("base", "sft", "rlhf")}
    trees = {"none": None, "older": older | {"improvement_over_sft": {"mean_positive": 0.4}}, "run": TREE}
    for tag, tree in trees.items():
        if tree is not None:
            (tmp_path / "metrics/evaluation.json").write_text(json.dumps(tree))
            (tmp_path / "metrics/reward.json").write_text('{"accuracy": 0.9, "accuracy_low": 0.87, "accuracy_high": 0.93}')
        git(tmp_path, "add", "-A")
        git(tmp_path, "commit", "-qm", tag)
        git(tmp_path, "tag", tag)
    tree = copy.deepcopy(TREE)
    tree["rlhf"] |= {"mean_positive": 0.9, "perplexity": 4.571, "distinct_2": None}
    tree["improvement_over_sft"]["mean_positive"] = 0.409
    (tmp_path / "metrics/evaluation.json").write_text(json.dumps(tree))
    return tmp_path


def run(folder: Path, *arguments: str, status: int = 0) -> list[str]:
    """Return the lines that tools/metrics.py prints."""
    command = [sys.executable, str(ROOT / "tools/metrics.py"), *arguments]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    assert done.returncode == status, done.stdout
    assert status or max(map(len, done.stdout.splitlines())) <= 100
    return done.stdout.splitlines()


def test_the_workspace_has_a_column_for_each_contestant(repository: Path) -> None:
    lines = run(repository)
    assert len(lines) <= 15
    assert lines[1].split()[2:] == ["0.475", "0.491", "0.900", "+0.409", "[0.424,", "0.478]"]
    rows = {line[:30].strip(): line[30:].split() for line in lines[1:]}
    assert rows["perplexity under base"] == ["3.57", "3.57", "4.57", "+1.00"]
    assert rows["distinct bigrams"] == ["0.091", "0.091", "-", "-"]
    assert rows["KL to sft (nats per response)"] == ["-", "-", "0.92", "-"]
    assert "reward model 0.900, judge -" in lines[-2]
    assert "90 % interval of the difference" in lines[-1]


def test_a_change_has_old_and_new_figures_and_says_what_the_interval_is_of(repository: Path) -> None:
    lines = run(repository, "run")
    assert len(lines) <= 15
    assert lines[0].split() == ["run", "workspace", "change", "[low,", "high]"]
    assert lines[1].split() == ["rlhf", "-", "sft:", "mean", "P(positive)", "0.451", "0.409", "-0.042", "[0.424,", "0.478]"]
    rows = {line.split("  ")[0]: line.split()[-3:] for line in lines[1:]}
    assert rows["rlhf: perplexity under base"] == ["3.57", "4.57", "+1.00"]
    assert rows["rlhf: distinct bigrams"] == ["0.076", "-", "-"]
    assert "interval of the workspace's figure (not of the change)" in lines[-1]


def test_a_revision_of_an_older_shape_has_dashes(repository: Path) -> None:
    rows = {line.split("  ")[0]: line.split("  ", 1)[1].split() for line in run(repository, "older")[1:-1]}
    assert rows["rlhf - sft: mean P(positive)"][:3] == ["0.400", "0.409", "+0.009"]
    assert rows["rlhf - base: mean P(positive)"][:3] == ["-", "0.466", "-"]


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("none", "metrics: 'none' has no figures in metrics/evaluation.json; name a commit of a finished run"),
        ("nowhere", "metrics: there is no revision 'nowhere'; name a branch, a tag, a commit or an experiment"),
        ("run:params.yaml", "metrics: there is no revision 'run:params.yaml'; name a branch, a tag, a commit or an experiment"),
    ],
)
def test_a_wrong_revision_is_one_line(repository: Path, base: str, said: str) -> None:
    assert run(repository, base, status=1) == [said]


def test_a_workspace_without_a_run_is_one_line(repository: Path) -> None:
    (repository / "metrics/evaluation.json").write_text("{")
    (said,) = run(repository, status=1)
    assert said.startswith("metrics: metrics/evaluation.json of the workspace cannot be read; ")
    (repository / "metrics/evaluation.json").unlink()
    assert run(repository, status=1) == ["metrics: the workspace has no figures in metrics/evaluation.json; run `make repro`"]


def test_settings_with_conflicts_are_one_line(repository: Path) -> None:
    (repository / "params.yaml").write_text("<<<<<<< HEAD\nseed: 1\n=======\nseed: 2\n>>>>>>> main\n")
    for arguments in ((), ("run",)):
        assert run(repository, *arguments, status=1) == [
            "metrics: params.yaml of the workspace cannot be read; resolve its conflicts, or restore it from git"
        ]


@pytest.mark.parametrize("text", ["evaluate: {confidence: abc}\n", "evaluate: {}\n"])
def test_an_unknown_level_is_left_out(repository: Path, text: str) -> None:
    (repository / "params.yaml").write_text(text)
    assert run(repository)[-1].startswith("[low, high]: interval of the difference")


def test_the_level_is_that_of_the_run_and_later_settings_are_named(repository: Path) -> None:
    lock = {"stages": {"evaluate": {"params": {"params.yaml": {"evaluate": {"confidence": 0.9}}}}}}
    (repository / "dvc.lock").write_text(json.dumps(lock))
    (repository / "params.yaml").write_text("evaluate: {confidence: 0.5}\n")
    *_, level, stale = run(repository)
    assert "90 % interval" in level
    assert stale == "Stale: evaluate.confidence changed in params.yaml since this run. `make repro` runs it."
    assert run(repository, "run")[-1] == stale


def test_figures_that_are_measured_differently_are_named(repository: Path) -> None:
    (repository / "params.yaml").write_text("evaluate: {confidence: 0.9, distinct_tokens: 5}\n")
    assert run(repository, "run")[-1] == "Not comparable: other tokens for distinct_2. `make review BASE=run` says more."


def test_a_pipe_that_ends_early_is_no_error(repository: Path) -> None:
    command = f"{sys.executable} {ROOT / 'tools/metrics.py'} | true"
    for _ in range(3):
        done = subprocess.run(["bash", "-c", command], cwd=repository, capture_output=True, text=True, check=True)
        assert done.stderr == ""


def entry(name: str, steps: int, second: int, state: str | None = None, **more: Any) -> dict[str, Any]:
    """Return an experiment or a commit of `dvc exp show --json`."""
    params = {"seed": 1, "ppo": {"steps": steps, "kl_target": None}, "evaluate": {"judges": ["classifier", "lexicon"]} | more}
    data = {
        "timestamp": f"2026-11-27T03:00:{second:02}",
        "params": {"params.yaml": {"data": params}},
        "metrics": {"metrics/evaluation.json": {"data": TREE}},
    }
    own = {"rev": "c6c2d638bf7c22b7", "name": name, "data": data, "error": None, "experiments": None}
    return {"name": name, "revs": [own], "executor": {"state": state} if state else None, "own": own}


def test_experiments_are_sorted_by_time_and_unfinished_ones_have_no_figures() -> None:
    main, workspace = entry("main", 30, 0)["own"], entry("workspace", 60, 0)["own"]
    broken = entry("broken", 1, 4)
    broken["revs"][0] |= {"data": None, "error": {"msg": "not YAML"}}
    late, queued, failed = entry("late", 200, 3), entry("waits", 90, 2, "queued"), entry("bad", 31, 1, "failed")
    found = list(rows_of([workspace, main | {"experiments": [late, broken, queued, failed]}]))
    assert [(cells[0], cells[2]) for cells, _ in found] == [
        ("workspace", ""),
        ("main", "commit"),
        ("broken", "failed"),
        ("bad", "failed"),
        ("waits", "queued"),
        ("late", "done"),
    ]
    assert [settings for _, settings in found] == [
        {"ppo.steps": "60"},
        {},
        {},
        {"ppo.steps": "31"},
        {"ppo.steps": "90"},
        {"ppo.steps": "200"},
    ]
    figures = ["0.475", "0.491", "0.942", "+0.451 [0.42, 0.48]", "0.92", "3.57", "0.076"]
    assert found[-1][0] == ["late", "11-27 03:00", "done", *figures]
    assert [cells[3:] for cells, _ in found[2:5]] == [["-"] * 7] * 3


def test_the_table_of_experiments_fits_120_columns_and_loses_no_setting() -> None:
    main = entry("main", 30, 0)["own"]
    name = "a-name-of-exactly-30-character"
    settings: dict[str, Any] = {f"setting_{number}": number for number in range(9)}
    long = entry(name, 200, 1, None, judges=["a"], **settings)
    lines = table(list(rows_of([main, main | {"experiments": [long, entry("short", 20, 2)]}]))).splitlines()
    assert max(map(len, lines)) <= 120
    assert lines[0].split()[:3] == ["experiment", "created", "state"]
    assert lines[3].startswith(f"{name} ")
    assert lines[3].endswith(" 0.076 see below")
    assert lines[4].endswith(" 0.076 ppo.steps=20")
    below = " ".join(line.strip() for line in lines[5:])
    assert below.startswith(f'{name}: ppo.steps=200 evaluate.judges=["a"] evaluate.setting_0=0 ')
    assert below.endswith(" evaluate.setting_8=8")


def test_settings_are_compared_by_their_whole_names() -> None:
    before = {"ppo": {"steps": 1, "kl_target": 2.0}, "evaluate": {"judges": ["classifier"]}, "data": {"columns": {}}}
    after = {"ppo": {"steps": 2, "kl_target": None}, "evaluate": {"judges": ["a", "b c=d"]}, "data": {"columns": {}}}
    trees = [settings_of({"params": {"params.yaml": {"data": tree}}}) for tree in (before, after)]
    assert changed(*trees) == {"ppo.steps": "2", "ppo.kl_target": "null", "evaluate.judges": '["a", "b c=d"]'}
