"""dvc.yaml matches the code: deps are imported modules and files read, and params are the sections loaded."""

import ast
import importlib
import subprocess
import sys
from typing import Any

import pytest

import rlhf_sentiment
from rlhf_sentiment.evaluation.contestants import CONTESTANTS

from .closure import PACKAGE, ROOT, STAGES, closure, pipeline

PIPELINE = pipeline()
# Folders that a stage may depend on as a whole. It uses most of their files, and a change to any file reruns it.
FOLDERS = {"data", "engine", "evaluation", "models", "planning", "ppo", "sampling", "settings", "training"}
# Settings that cannot change the bytes of a stage's outs.
NO_DEP = {"checkpoint_every"}


def script_of(stage: str) -> str:
    return stage.split("@")[0]


def declared(stage: str, kind: str) -> list[str]:
    """Return READS or WRITES of a stage's script, of its item where it has items."""
    paths = getattr(importlib.import_module(script_of(stage)), kind, [])
    return list(paths[stage.split("@")[1]] if isinstance(paths, dict) else paths)


def names(entries: list[Any]) -> list[str]:
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def test_every_stage_is_declared() -> None:
    scripts = {file.stem for file in STAGES.glob("*.py")} - {"compare", "convert", "mend"}
    assert {script_of(name) for name in PIPELINE} == scripts
    for name, stage in PIPELINE.items():
        assert stage["cmd"] == " ".join(["python", f"stages/{script_of(name)}.py", *name.split("@")[1:]])


def test_every_contestant_is_sampled() -> None:
    assert [name for name in PIPELINE if script_of(name) == "sample"] == [f"sample@{name}" for name in CONTESTANTS]
    for contestant in CONTESTANTS.values():
        assert contestant.folder in PIPELINE[f"sample@{contestant.name}"]["deps"]
        assert set(contestant.compared_with.values()) <= CONTESTANTS.keys()


@pytest.mark.parametrize("name", PIPELINE)
def test_deps_are_the_import_closure_and_the_files_read(name: str) -> None:
    code = {path.relative_to(ROOT).as_posix() for path in closure(STAGES / f"{script_of(name)}.py")}
    reads = declared(name, "READS")
    deps = PIPELINE[name]["deps"]
    assert len(deps) == len(set(deps))
    folders = {dep for dep in deps if dep.removeprefix("stages/rlhf_sentiment/") in FOLDERS}
    in_folders = {file for file in code if any(file.startswith(f"{folder}/") for folder in folders)}
    assert set(deps) - folders == (code - in_folders) | set(reads)
    for folder in folders:
        files = {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).glob("*.py") if path.name != "__init__.py"}
        assert len(files & code) * 2 > len(files), f"{name} uses less than half of {folder}: name the files"


def test_the_init_of_a_subpackage_runs_nothing_and_it_has_no_subfolder() -> None:
    """DVC hashes a whole folder. So `__init__.py` runs nothing, there is no subfolder, and caches are ignored."""
    assert "__pycache__" in (ROOT / ".dvcignore").read_text().splitlines()
    for folder in PACKAGE.iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            (docstring,) = ast.parse((folder / "__init__.py").read_text()).body
            assert isinstance(docstring, ast.Expr)
            assert not [inner for inner in folder.iterdir() if inner.is_dir() and inner.name != "__pycache__"]


@pytest.mark.parametrize("name", PIPELINE)
def test_outs_are_what_the_stage_says_it_writes(name: str) -> None:
    stage = PIPELINE[name]
    outs = [*names(stage.get("outs", [])), *names(stage.get("metrics", [])), *names(stage.get("plots", []))]
    assert sorted(set(outs)) == sorted(declared(name, "WRITES"))  # DVC takes an out that is named twice as one
    for kind in ("metrics", "plots"):
        for entry in stage.get(kind, []):
            (options,) = entry.values()
            assert options["cache"] is False, "reviewers need git only"
    assert all(isinstance(entry, str) for entry in stage.get("outs", [])), "cache: false would turn off the run cache"


@pytest.mark.parametrize("name", PIPELINE)
def test_params_are_the_sections_loaded(name: str) -> None:
    loaded = set()
    for key, field in importlib.import_module(script_of(name)).Params.model_fields.items():
        partial = getattr(field.annotation, "model_config", {}).get("extra") == "ignore"  # it reads only these keys
        loaded |= {f"{key}.{inner}" for inner in field.annotation.model_fields} if partial else {key}
    if name == "check":
        assert PIPELINE[name]["params"] == [{"params.yaml": None}]
    else:
        assert set(PIPELINE[name].get("params", [])) == loaded - NO_DEP


@pytest.mark.slow
def test_the_closure_equals_the_imports_of_python() -> None:
    """The imports that `closure` finds equal those of Python, for the stages with the fewest and the most imports."""
    for name in ("check", "prepare", "evaluate"):
        program = f"import sys; sys.path.insert(0, {str(STAGES)!r}); import {name}; print(*sys.modules)"
        loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
        own = {f"rlhf_sentiment.{'.'.join(path.relative_to(PACKAGE).with_suffix('').parts)}" for path in PACKAGE.rglob("*.py")}
        found = {module for module in loaded if module in own}
        files = {STAGES.joinpath(*module.split(".")).with_suffix(".py") for module in found}
        assert files == closure(STAGES / f"{name}.py") - {STAGES / f"{name}.py"}, name


@pytest.mark.parametrize("name", ["base", "sft", "reward", "ppo"])
def test_training_stages_import_nothing_of_evaluation(name: str) -> None:
    assert not {file.parent.name for file in closure(STAGES / f"{name}.py")} & {"api", "evaluation"}


def test_importing_the_package_does_not_import_torch() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    run = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]  # a function runs at the first use of a name
    imports = [each for node in run for each in ast.walk(node) if isinstance(each, ast.ImportFrom) and each.module != "typing"]
    (for_types,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    assert imports == for_types.body
    assert {alias.asname: node.module for node in imports for alias in node.names} == rlhf_sentiment._NAMES
    program = f"import sys; sys.path.insert(0, {str(STAGES)!r}); import rlhf_sentiment; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    for name, module in rlhf_sentiment._NAMES.items():
        assert getattr(rlhf_sentiment, name) is getattr(importlib.import_module(f"rlhf_sentiment.{module}"), name)
    with pytest.raises(AttributeError, match="no attribute 'Jugde'"):
        rlhf_sentiment.Jugde  # noqa: B018
