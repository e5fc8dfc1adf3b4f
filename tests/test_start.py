"""What a stage does before it imports its libraries: it checks them, answers its command line, and sets variables."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf_sentiment.engine import environment

from .closure import STAGES
from .conftest import ROOT, World, assert_names, checkout, tiny_params

SCRIPTS = sorted(STAGES.glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_imports_start_first(script: Path) -> None:
    first = next(node for node in ast.walk(ast.parse(script.read_text())) if isinstance(node, (ast.Import, ast.ImportFrom)))
    assert isinstance(first, ast.ImportFrom)
    assert first.module == "rlhf_sentiment.engine.start"


def imported(*arguments: str, status: int) -> tuple[set[str], str]:
    """Return the packages that a Python process imports, and what it says."""
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    lines = done.stderr.splitlines()
    times = [line for line in lines if line.startswith("import time:")]
    said = "\n".join(line for line in lines if line not in times)
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in times}, done.stdout + said


SLOW = {"accelerate", "datasets", "dvc", "matplotlib", "numpy", "pandas", "scipy", "sklearn", "torch", "transformers", "trl"}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_answers_its_command_line_before_it_imports_its_libraries(script: Path) -> None:
    helped, said = imported(str(script), "--help", status=0)
    assert f"python stages/{script.stem}.py" in said
    assert helped & (SLOW | {"pydantic"}) == set()
    assert {"argparse", "rlhf_sentiment"} <= helped, "the process tells what it imports"
    refused, said = imported(str(script), "--bogus", status=2)
    assert f"python stages/{script.stem}.py: " in said
    assert refused & SLOW == set()


@pytest.mark.parametrize("name", ["ConfigError", "RLHFConfig", "StageError"])
def test_a_light_name_of_the_package_imports_no_slow_library(name: str) -> None:
    program = f"import sys; sys.path[0] = {str(STAGES)!r}; from rlhf_sentiment import {name}"
    found, _ = imported("-c", program, status=0)
    assert "pydantic" in found
    assert found & SLOW == set()


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """Make a folder with a `python` that has only the standard library."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "python").write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    (folder / "python").chmod(0o755)
    return folder


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_python_without_the_libraries_names_a_missing_one(bare: Path, tmp_path: Path, script: Path) -> None:
    done = subprocess.run([bare / "python", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{script.stem}: ")
    assert_names(line, sys.executable, "portalocker", "activate", "requirements.txt")


def test_dvc_without_an_environment_names_the_one_to_activate(bare: Path, tmp_path: Path) -> None:
    world = checkout(tmp_path / "repository", tiny_params())
    activate = world / ".venv/bin/activate"
    activate.parent.mkdir(parents=True)
    activate.touch()
    dvc = str(Path(sys.executable).parent / "dvc")
    world.variables["PATH"] = f"{bare}:/usr/bin:/bin"
    said = world.run(dvc, "repro", status=255)
    assert "source .venv/bin/activate\n" in said
    assert "Traceback" not in said


def waits(**variables: str) -> list[str]:
    """Return the wait settings that libgomp prints when torch loads it after the first import of each script."""
    own = {name: value for name, value in World(Path()).environment().items() if not name.startswith(("OMP_", "GOMP_"))}
    command = [sys.executable, "-c", f"import sys; sys.path[0] = {str(STAGES)!r}; import rlhf_sentiment.engine.start, torch"]
    done = subprocess.run(
        command, env=own | {"OMP_DISPLAY_ENV": "verbose"} | variables, capture_output=True, text=True, check=True
    )
    return sorted({line.strip() for line in done.stderr.splitlines() if "SPINCOUNT" in line or "WAIT_POLICY" in line})


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="torch has another OpenMP than libgomp there")
def test_idle_threads_soon_sleep_unless_the_user_sets_a_variable() -> None:
    assert "GOMP_SPINCOUNT = '1000'" in waits()
    assert "GOMP_SPINCOUNT = '70'" in waits(GOMP_SPINCOUNT="70")
    passive = waits(OMP_WAIT_POLICY="passive")
    assert "OMP_WAIT_POLICY = 'PASSIVE'" in passive
    assert "GOMP_SPINCOUNT = '1000'" not in passive


CHANGES = (
    "ATEN_CPU_CAPABILITY",
    "GLIBC_TUNABLES",
    "MKL_CBWR",
    "NPY_DISABLE_CPU_FEATURES",
    "OMP_NUM_THREADS",
    "OPENBLAS_CORETYPE",
)


@pytest.mark.parametrize(
    "name", [*CHANGES, "DNNL_MAX_CPU_ISA", "ONEDNN_DEFAULT_FPMATH_MODE", "OPENBLAS_NUM_THREADS", "KMP_AFFINITY"]
)
def test_a_variable_that_changes_bytes_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    before = environment.arithmetic()
    monkeypatch.setenv(name, "x")
    assert environment.arithmetic() == before | {name: "x"}
    environment.record("ppo")
    assert json.loads((tmp_path / "runs/environment/ppo.json").read_text())["variables"][name] == "x"


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_variables_of_waiting_threads_are_recorded_and_change_no_key(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = environment.arithmetic()
    monkeypatch.setenv(name, "x")
    assert environment.arithmetic() == before
    assert environment.variables()[name] == "x"
