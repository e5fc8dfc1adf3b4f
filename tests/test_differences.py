"""The last lines of `make repro`: which results differ from the commit, each reason, and a command that puts the files back."""

import copy
import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from .closure import ROOT
from .conftest import World, assert_names

sys.path.insert(0, str(ROOT / "tools"))
import differences
import reasons
from rlhf_sentiment.engine import environment

PINS = {"numpy": "2.3.1", "torch": "2.13.0"}
RECORD: dict[str, Any] = {
    "libraries": {"python": "3.11.9", "numpy": "2.3.1", "torch": "2.13.0+cpu"},
    "processor": "Intel Haswell",
    "variables": {},
}
SEVERAL = "3 files differ from commit {}: dvc.lock, metrics/evaluation.json, plots/ppo.csv"
KEEP = "to keep these results, as is usual after such a change: commit them"
BACK = "to put the files of the commit back: git checkout HEAD -- dvc.lock metrics plots"


def md5(text: str) -> str:
    return hashlib.md5(text.encode()).hexdigest()  # noqa: S324 (DVC's hash)


class Clone:
    """A repository with two stages, whose results come from a run that is pretended.

    `base` reads data/raw and writes models/base. `ppo` reads models/base and writes models/ppo, a metric and a plot.
    """

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.arithmetic, self.steps, self.raw = "portable", 30, "texts"
        self.code = dict.fromkeys(("stages/base.py", "stages/ppo.py"), "pass\n")
        self.git("init", "-q", "-b", "main")
        (folder / ".dvc").mkdir()
        (folder / ".gitignore").write_text("/models\n/runs\n/.dvc\n/data\n")
        (folder / "requirements.txt").write_text("".join(f"{name}=={version}\n" for name, version in PINS.items()))
        self.run("one", "one")

    def git(self, *arguments: str) -> str:
        command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
        return subprocess.run(command, cwd=self.folder, check=True, capture_output=True, text=True).stdout.strip()

    def write(self, path: str, text: str) -> str:
        """Write a file, and return its hash."""
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_text(text)
        return md5(text)

    def model(self, path: str, text: str) -> str:
        """Write a folder of one file, put both in DVC's cache, and return the hash of the folder."""
        listing = json.dumps([{"md5": self.write(f"{path}/weights", text), "relpath": "weights"}])
        for content, suffix in ((text, ""), (listing, ".dir")):
            self.write(f".dvc/cache/files/md5/{md5(content)[:2]}/{md5(content)[2:]}{suffix}", content)
        return f"{md5(listing)}.dir"

    def run(self, base: str, ppo: str) -> None:
        """Write settings, code, results and dvc.lock as a run with these models leaves them."""
        params = {"arithmetic": self.arithmetic, "ppo": {"steps": self.steps}}
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params))
        code = {path: self.write(path, text) for path, text in self.code.items()}
        models = {f"models/{name}": self.model(f"models/{name}", text) for name, text in (("base", base), ("ppo", ppo))}
        results = {path: self.write(path, json.dumps({"a": ppo})) for path in ("metrics/evaluation.json", "plots/ppo.csv")}

        def entry(script: str, reads: dict[str, str], writes: dict[str, str], **params: Any) -> dict[str, Any]:
            files = {"deps": {script: code[script]} | reads, "outs": writes}
            listed = {kind: [{"path": path, "md5": one} for path, one in each.items()] for kind, each in files.items()}
            return {"cmd": f"python {script}", "params": {"params.yaml": {"arithmetic": self.arithmetic} | params}, **listed}

        base_writes, ppo_writes = {"models/base": models["models/base"]}, {"models/ppo": models["models/ppo"], **results}
        stages = {
            "base": entry("stages/base.py", {"data/raw": md5(self.raw)}, base_writes),
            "ppo": entry("stages/ppo.py", base_writes, ppo_writes, **{"ppo.steps": self.steps}),
        }
        (self.folder / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": stages}))

    def record(self, **changes: Any) -> None:
        """Write runs/environment as both stages leave it."""
        record = copy.deepcopy(RECORD)
        for key, value in changes.items():
            record[key] = record[key] | value if isinstance(value, dict) else value
        for name in ("base", "ppo"):
            file = self.folder / f"runs/environment/{name}.json"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(record))

    def commit(self) -> str:
        """Commit everything, and return the short hash."""
        self.git("add", "-A")
        self.git("commit", "-qm", "a run")
        return self.git("rev-parse", "--short", "HEAD")

    def said(self) -> list[str]:
        """Return what the command prints, without the name in front."""
        self.capsys.readouterr()
        differences.main()
        out, err = self.capsys.readouterr()
        assert err == ""
        assert all(line.startswith("repro: ") and len(line) <= 1_007 for line in out.splitlines())
        return [line.removeprefix("repro: ") for line in out.splitlines()]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Clone:
    """Return a repository with a committed run, on a machine for which identical bytes are promised."""
    folder = tmp_path / "project"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", ["tools/differences.py"])
    monkeypatch.setattr(reasons, "why_not_portable", lambda: None)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    made = Clone(folder, capsys)
    made.record()
    return made


@pytest.mark.parametrize("detached", [False, True])
def test_the_same_results_are_one_line(clone: Clone, detached: bool) -> None:
    commit = clone.commit()
    if detached:
        clone.git("checkout", "-q", "--detach")
    assert clone.said() == [f"the results are those of commit {commit}"]
    clone.run("one", "one")
    assert clone.said() == [f"the results are those of commit {commit}"]


def edit_settings(clone: Clone) -> None:
    clone.steps = 40
    clone.run("one", "two")


def edit_code(clone: Clone) -> None:
    clone.code["stages/ppo.py"] = "other\n"
    clone.run("one", "two")


def edit_inputs(clone: Clone) -> None:
    clone.raw = "other texts"
    clone.run("two", "two")


def test_other_settings_are_named_and_the_command_puts_all_files_back(clone: Clone) -> None:
    commit = clone.commit()
    edit_settings(clone)
    assert clone.said() == [
        SEVERAL.format(commit),
        "reason: other settings: ppo.steps",
        f"{KEEP} together with params.yaml",
        f"{BACK} && dvc checkout",
        "your edits of other files stay, so `make repro` would then run again",
    ]
    assert len(clone.git("status", "--short").splitlines()) == 4
    clone.git("checkout", "HEAD", "--", "dvc.lock", "metrics", "plots")
    assert clone.git("status", "--short") == "M params.yaml"
    assert clone.said() == [f"the results are those of commit {commit}"]


def test_other_code_is_named(clone: Clone) -> None:
    commit = clone.commit()
    edit_code(clone)
    assert clone.said()[:3] == [
        SEVERAL.format(commit),
        "reason: other code: stages/ppo.py",
        f"{KEEP} together with stages/ppo.py",
    ]


def test_code_that_gives_the_same_results_changes_only_the_lock(clone: Clone) -> None:
    commit = clone.commit()
    clone.code["stages/ppo.py"] = "pass  # a comment\n"
    clone.run("one", "one")
    lines = clone.said()
    assert lines[0] == f"1 file differs from commit {commit}: dvc.lock; the metrics and plots are the same"
    assert lines[1] == "reason: other code: stages/ppo.py"
    assert lines[3] == BACK, "no output differs, so DVC has nothing to restore"


def test_a_commit_that_lacks_the_results_of_its_own_settings_is_named(clone: Clone) -> None:
    clone.commit()
    (clone.folder / "params.yaml").write_text(yaml.safe_dump({"arithmetic": "portable", "ppo": {"steps": 40}}))
    commit = clone.commit()
    edit_settings(clone)
    assert clone.said()[1:] == [
        "reason: other settings: ppo.steps",
        f"{KEEP}. Those of commit {commit} are from before the change",
        f"{BACK} && dvc checkout",
        "the change stays, so `make repro` would then run again",
    ]


def test_other_inputs_are_named_and_outs_of_stages_are_not(clone: Clone) -> None:
    clone.commit()
    edit_inputs(clone)
    assert clone.said()[1] == "reason: other inputs: data/raw"
    assert clone.said()[2].startswith(KEEP)


def test_a_new_stage_and_another_command_are_code(clone: Clone) -> None:
    clone.commit()
    tree = yaml.safe_load((clone.folder / "dvc.lock").read_text())
    tree["stages"]["ppo"]["cmd"] = "python stages/ppo.py --fast"
    tree["stages"]["lengths"] = {"cmd": "python stages/lengths.py"}
    (clone.folder / "dvc.lock").write_text(yaml.safe_dump(tree))
    (clone.folder / "metrics/lengths.json").write_text("{}")
    lines = clone.said()
    assert lines[1].endswith(" does not have metrics/lengths.json")
    assert lines[2] == "reason: other code: lengths (new stage), dvc.yaml (ppo)"


def test_many_files_are_cut(clone: Clone) -> None:
    for number in range(9):
        (clone.folder / f"plots/{number}.csv").write_text("a")
    clone.commit()
    for number in range(9):
        (clone.folder / f"plots/{number}.csv").write_text("b")
    edit_settings(clone)
    assert clone.said()[0].endswith(": dvc.lock, metrics/evaluation.json, plots/0.csv, plots/1.csv and 8 more")


def other_bytes(clone: Clone, arithmetic: str = "portable") -> str:
    """Commit a run, and let a second run of the same settings and code give other bytes."""
    clone.arithmetic = arithmetic
    clone.run("one", "one")
    commit = clone.commit()
    clone.run("two", "two")
    return commit


def test_other_bytes_without_a_reason_are_a_fault_to_report(clone: Clone) -> None:
    commit = other_bytes(clone)
    assert clone.said() == [
        SEVERAL.format(commit),
        f"reason: unknown. base had the command, code, settings, inputs and libraries of commit {commit}, and ran where "
        "identical bytes are promised (Intel Haswell). If the results of that commit were made where bytes are promised, too, "
        "this is a fault. Please report it: docs/reproducibility.md",
        f"{BACK} && dvc checkout",
    ]


def test_fast_arithmetic_names_the_processor(clone: Clone) -> None:
    other_bytes(clone, "fast")
    (line,) = clone.said()[1:-1]
    assert line == "reason: another kind of processor. With `arithmetic: fast`, bytes depend on it (here: Intel Haswell)"


def test_a_change_to_fast_is_a_setting(clone: Clone) -> None:
    clone.commit()
    clone.arithmetic = "fast"
    clone.run("two", "two")
    assert [line for line in clone.said() if line.startswith("reason")] == ["reason: other settings: arithmetic"]


def test_a_machine_without_the_promise_is_a_reason(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    other_bytes(clone)
    monkeypatch.setattr(reasons, "why_not_portable", lambda: "this processor is aarch64")
    (line,) = clone.said()[1:-1]
    assert line == (
        "reason: another kind of machine. Bytes are promised for x86-64 Linux with AVX2, but this processor is aarch64"
    )


def test_libraries_of_the_run_are_compared_with_the_pins_of_the_commit(clone: Clone) -> None:
    other_bytes(clone)
    clone.record(libraries={"torch": "2.14.0+cu130", "numpy": "2.3.2", "dvc": "1"})
    (line,) = clone.said()[1:-1]
    assert line == "reason: other libraries: numpy 2.3.2 (not 2.3.1), torch 2.14.0 (not 2.13.0)"


def test_only_the_records_of_unexplained_stages_count(clone: Clone) -> None:
    """The stage ppo read another model, so its libraries are not the first cause."""
    other_bytes(clone)
    clone.record(libraries={"torch": "2.14.0"})
    (clone.folder / "runs/environment/base.json").write_text(json.dumps(RECORD))
    assert clone.said()[1].startswith("reason: unknown. base had ")


@pytest.mark.parametrize("damage", [None, "{", "[]", '{"libraries": 1, "variables": {}}'])
def test_without_a_record_the_installed_libraries_count(
    clone: Clone, monkeypatch: pytest.MonkeyPatch, damage: str | None
) -> None:
    other_bytes(clone)
    for file in (clone.folder / "runs/environment").iterdir():
        file.unlink() if damage is None else file.write_text(damage)
    monkeypatch.setattr(environment, "libraries", lambda: {"python": "3.11.2", "torch": "2.12.0"})
    (line,) = clone.said()[1:-1]
    assert line == "reason: other libraries: torch 2.12.0 (not 2.13.0)"


def test_another_python_and_a_preloaded_library_are_reasons(clone: Clone) -> None:
    other_bytes(clone)
    clone.record(libraries={"python": "3.12.1"}, variables={"LD_PRELOAD": "x.so", "OMP_NUM_THREADS": "2"})
    assert clone.said()[1:-1] == [
        "reason: Python 3.12.1. Identical bytes are promised for 3.11 only",
        "reason: LD_PRELOAD in the environment, which stages cannot undo",
    ]


def test_two_reasons_are_both_named(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stage ppo has other code, and base has other bytes on another machine with the same code."""
    clone.commit()
    clone.code["stages/ppo.py"] = "other\n"
    clone.run("two", "two")
    monkeypatch.setattr(reasons, "why_not_portable", lambda: "this system is macOS")
    assert clone.said()[1:3] == [
        "reason: other code: stages/ppo.py",
        "reason: another kind of machine. Bytes are promised for x86-64 Linux with AVX2, but this system is macOS",
    ]
    assert "reason: unknown" not in "".join(clone.said())
    monkeypatch.setattr(reasons, "why_not_portable", lambda: None)
    assert clone.said()[2].startswith("reason: unknown. base had ")


@pytest.mark.parametrize(("base", "also"), [("one", []), ("two", ["perhaps another kind of machine"])])
def test_code_of_every_stage_may_hide_the_machine_unless_a_model_is_the_same(
    clone: Clone, monkeypatch: pytest.MonkeyPatch, base: str, also: list[str]
) -> None:
    clone.commit()
    clone.code = dict.fromkeys(clone.code, "other\n")
    clone.run(base, "two")
    monkeypatch.setattr(reasons, "why_not_portable", lambda: "this system is macOS")
    found = [line.removeprefix("reason: ").partition(".")[0] for line in clone.said() if line.startswith("reason: ")]
    assert found == ["other code: stages/base", *also]


def test_a_deleted_metric_is_named(clone: Clone) -> None:
    commit = clone.commit()
    (clone.folder / "metrics/evaluation.json").unlink()
    assert clone.said() == [
        f"1 file differs from commit {commit}: metrics/evaluation.json",
        "reason: edited or deleted after the run: metrics/evaluation.json",
        BACK,
    ]
    clone.git("checkout", "HEAD", "--", "dvc.lock", "metrics", "plots")
    assert clone.said() == [f"the results are those of commit {commit}"]


def test_a_deleted_lock_is_one_line_that_says_how_to_get_it_back(clone: Clone) -> None:
    clone.commit()
    (clone.folder / "dvc.lock").unlink()
    assert clone.said() == ["dvc.lock is missing; to put it back: git checkout HEAD -- dvc.lock"]


def test_a_subfolder_is_not_taken_for_the_project(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    clone.commit()
    (clone.folder / "docs").mkdir(exist_ok=True)
    monkeypatch.chdir(clone.folder / "docs")
    (line,) = differences.compared()
    assert_names(line, "no commit", "the folder that has dvc.lock")


def test_a_commit_whose_metrics_are_not_those_of_its_lock(clone: Clone) -> None:
    (clone.folder / "metrics/evaluation.json").write_text("{}")
    commit = clone.commit()
    clone.run("one", "one")
    assert clone.said()[1:] == [f"reason: the results of commit {commit} do not fit its own dvc.lock", BACK]


def forget(clone: Clone, what: Callable[[Path], bool]) -> None:
    """Delete what DVC's cache has of some files."""
    for file in (clone.folder / ".dvc/cache/files/md5").rglob("*"):
        if file.is_file() and what(file):
            file.unlink()


@pytest.mark.parametrize("part", ["folder", "file"])
def test_dvc_checkout_is_not_named_where_it_would_delete(clone: Clone, part: str) -> None:
    commit = other_bytes(clone)
    weights = Path(md5("one")[:2], md5("one")[2:])
    forget(clone, lambda file: file.suffix == ".dir" if part == "folder" else Path(*file.parts[-2:]) == weights)
    assert clone.said()[2:] == [
        BACK,
        f"DVC's cache lacks models/base, models/ppo of commit {commit}, so `dvc checkout` would remove yours. `make pull` gets "
        "them from a remote, if there is one. Otherwise yours stay, and `make repro` would run their stages again",
    ]


def test_without_dvc_nothing_that_deletes_is_named(clone: Clone) -> None:
    other_bytes(clone)
    (clone.folder / ".dvc").rename(clone.folder / "models/.dvc")
    assert clone.said()[2] == BACK
    assert "would remove yours" in clone.said()[3]


def test_a_commit_without_results(clone: Clone) -> None:
    clone.git("add", "stages", "params.yaml", "requirements.txt", ".gitignore")
    clone.git("commit", "-qm", "code")
    commit = clone.git("rev-parse", "--short", "HEAD")
    assert clone.said() == [
        f"commit {commit} does not have dvc.lock, metrics/evaluation.json, plots/ppo.csv",
        f"reason: unknown, because commit {commit} has no dvc.lock",
        KEEP,
    ]


def test_a_project_below_the_root_of_its_repository_is_compared_alone(clone: Clone) -> None:
    (clone.folder / ".git").rename(clone.folder.parent / ".git")
    for folder in ("other/metrics", "metrics"):
        (clone.folder.parent / folder).mkdir(parents=True)
        (clone.folder.parent / folder / "a.json").write_text("{}")
    clone.git("add", "-A", "..")
    commit = clone.commit()
    (clone.folder.parent / "metrics/a.json").write_text("[]")
    assert clone.said() == [f"the results are those of commit {commit}"]
    edit_settings(clone)
    lines = clone.said()
    assert lines[0] == SEVERAL.format(commit)
    assert lines[2] == f"{KEEP} together with params.yaml"
    clone.git(*lines[3].partition(": git ")[2].removesuffix(" && dvc checkout").split())
    assert clone.git("status", "--short").split("\n") == ["M ../metrics/a.json", " M params.yaml"]


def test_without_a_commit_and_without_git_nothing_is_compared(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    assert clone.said() == ["the results were compared with no commit, because git has none yet"]
    (clone.folder / ".git").rename(clone.folder / "models/.git")
    assert clone.said() == ["the results were compared with no commit, because this folder is not in a git repository"]
    monkeypatch.setenv("PATH", "")
    (line,) = clone.said()
    assert line.startswith("the results were not compared with the commit: ")


@pytest.mark.parametrize("file", ["dvc.lock", "metrics/evaluation.json"])
def test_a_damaged_file_of_the_commit_is_one_line(clone: Clone, file: str) -> None:
    (clone.folder / file).write_text("[")
    commit = clone.commit()
    clone.run("one", "one")
    *_, line = clone.said()
    assert line.startswith(f"the results were not compared with the commit: {file} of commit {commit} cannot be read")


def test_make_repro_ends_with_the_comparison() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\nrepro: setup\n")[2].partition("\n\n")[0]
    assert recipe.splitlines()[-1] == "\t@python tools/differences.py"


def test_a_run_of_the_pipeline_and_the_command_that_puts_its_files_back(world: World) -> None:
    said = world.run("make", "--no-print-directory", "-o", "setup", "repro").splitlines()
    commit = world.run("git", "rev-parse", "--short", "HEAD").strip()
    assert said[-1] == f"repro: the results are those of commit {commit}"
    world.set("evaluate.resamples", 99)
    said = world.run("make", "--no-print-directory", "-o", "setup", "repro").splitlines()
    lines = [line.removeprefix("repro: ") for line in said if line.startswith("repro: ")]
    assert lines[1:3] == ["reason: other settings: evaluate.resamples", f"{KEEP} together with params.yaml"]
    command = lines[3].partition("back: ")[2]
    assert command == "git checkout HEAD -- dvc.lock metrics plots && dvc checkout"
    world.run("bash", "-c", command)
    assert world.run("git", "status", "--short") == " M params.yaml\n"
    world.run("git", "checkout", "params.yaml")
    assert "up to date" in world.run("dvc", "status")
    assert (
        world.run("make", "--no-print-directory", "-o", "setup", "repro").splitlines()[-1]
        == f"repro: the results are those of commit {commit}"
    )
