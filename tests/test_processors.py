"""Portable arithmetic gives the same bytes on every x86-64 processor: `make verify-processors`.

qemu-user runs a Python process as another processor. It needs no second machine, and no rights. It does not follow `exec`: a
process that an emulated process starts runs on the real processor. So DVC runs on the real processor, and the `python` that it
finds first in PATH is a script that starts qemu.

The list of tests/operations.py has recorded hashes. So every machine that runs the tests compares itself with all others.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rlhf_sentiment.engine.arithmetic import PINS

from .conftest import ROOT, World, checkout, outs, tiny_params
from .operations import KERNELS
from .processor import describe
from .test_killed import end_started_processes, start, until  # noqa: F401 (a fixture that applies to this file)
from .test_verify import FOLDERS, assert_same

# The models of qemu, and what tests/processor.py prints on them.
PROCESSORS = {
    "Haswell": "processor: Intel Core Processor (Haswell), GenuineIntel, AVX2",
    "EPYC": "processor: AMD EPYC Processor, AuthenticAMD, AVX2",
    "Skylake-Client": "processor: Intel Core Processor (Skylake), GenuineIntel, AVX2",
    "EPYC-Milan": "processor: AMD EPYC-Milan Processor, AuthenticAMD, AVX2",
}
QEMU = shutil.which("qemu-x86_64")
GOLDEN = (ROOT / "tests/golden/operations.txt").read_text().splitlines()
# A pin -> a group of operations that changes without it, and what the real processor needs for that.
AVX512, TWO_CORES = "AVX-512", "a second core"
WITHOUT = {
    "ATEN_CPU_CAPABILITY": ("reductions", AVX512),
    "MKL_CBWR": ("products", None),
    "ONEDNN_MAX_CPU_ISA": ("products", AVX512),
    "NPY_DISABLE_CPU_FEATURES": ("arrays", AVX512),
    "OPENBLAS_CORETYPE": ("arrays", AVX512),
    "OPENBLAS_NUM_THREADS": ("arrays", TWO_CORES),
    KERNELS: ("products", None),
}
# These matter only to a library that would otherwise use fewer threads than the setting says. It does not do so here.
NO_DIFFERENCE_HERE = {"OMP_DYNAMIC", "MKL_DYNAMIC", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"}

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or "AVX2" not in describe(), reason="portable arithmetic is that of x86-64 Linux with AVX2"
)
emulated = pytest.mark.skipif(QEMU is None, reason="needs qemu-x86_64, from Debian's package qemu-user")


def emulating(model: str, folder: Path) -> dict[str, str]:
    """Return variables with which `python` runs as another processor. Its first line names the processor.

    Args:
        model: a model of `qemu-x86_64 -cpu help`.
        folder: where to write the script `python`.
    """
    # Python finds its environment by its own path, which -0 gives. Without check=off, qemu lists what it cannot emulate.
    this = f'{QEMU} -cpu {model},check=off -0 "{sys.executable}" "{Path(sys.executable).resolve()}"'
    folder.mkdir()
    script = folder / "python"
    script.write_text(f'#!/bin/sh\n{this} "{ROOT}/tests/processor.py" || exit\nexec {this} "$@"\n')
    script.chmod(0o755)
    return {"PATH": f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"}


def operations(folder: Path, *arguments: str, variables: dict[str, str] | None = None) -> list[str]:
    """Run tests/operations.py in a folder with the settings of this repository, and return the lines of its output."""
    settings = yaml.safe_load((ROOT / "params.yaml").read_text()) | {"arithmetic": "portable", "threads": 2, "device": "auto"}
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    environment = World(folder, variables).environment()
    command = ["python", str(ROOT / "tests/operations.py"), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def recorded(*groups: str) -> list[str]:
    """Return the recorded lines of some groups of operations."""
    return [line for group in groups for line in GOLDEN if line.split()[1] == f"{group}:"]


def different(found: list[str], expected: list[str]) -> list[str]:
    """Return the names of the operations whose hashes differ. Fail if the names differ."""
    names = [line.partition(" ")[2] for line in expected]
    assert [line.partition(" ")[2] for line in found] == names
    return [name for name, one, other in zip(names, found, expected, strict=True) if one != other]


@pytest.mark.slow
def test_every_operation_has_the_recorded_hash(tmp_path: Path) -> None:
    assert different(operations(tmp_path), GOLDEN) == [], f"on {platform.platform()}, {describe()}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "pin", [pin if pin == "MKL_CBWR" else pytest.param(pin, marks=pytest.mark.thorough) for pin in WITHOUT]
)
def test_without_a_pin_some_hash_is_another(tmp_path: Path, pin: str) -> None:
    group, needed = WITHOUT[pin]
    if (needed == AVX512 and AVX512 not in describe()) or (needed == TWO_CORES and os.cpu_count() == 1):
        pytest.skip(f"this processor lacks {needed}, so this pin changes nothing")
    assert different(operations(tmp_path, group, "--without", pin), recorded(group)) != []


def test_every_pin_is_taken_away_once() -> None:
    assert WITHOUT.keys() | NO_DIFFERENCE_HERE == PINS.keys() | {KERNELS}


@emulated
@pytest.mark.slow
def test_a_training_step_has_the_recorded_hash_on_another_processor(tmp_path: Path) -> None:
    groups = "step", "optimizers", "critic"
    first, *found = operations(tmp_path, *groups, variables=emulating("Haswell", tmp_path / "bin"))
    assert first == PROCESSORS["Haswell"] != describe()
    assert different(found, recorded(*groups)) == []


@emulated
@pytest.mark.thorough
@pytest.mark.parametrize("model", PROCESSORS)
def test_every_operation_has_the_recorded_hash_on_other_processors(tmp_path: Path, model: str) -> None:
    first, *found = operations(tmp_path, variables=emulating(model, tmp_path / "bin"))
    assert first == PROCESSORS[model] != describe()
    assert different(found, GOLDEN) == []


@emulated
@pytest.mark.thorough
@pytest.mark.parametrize("model", ["Haswell", "EPYC"])
def test_the_pipeline_writes_the_same_bytes_on_other_processors(finished_world: World, tmp_path: Path, model: str) -> None:
    world = checkout(tmp_path / "repository", tiny_params(), emulating(model, tmp_path / "bin"))
    said = world.run("bash", "-c", "python --version && exec dvc repro").splitlines()
    assert said[0] == PROCESSORS[model] != describe()
    starts = [number for number, line in enumerate(said) if line.startswith("> python stages/")]
    assert len(starts) == len(world.stages_run("\n".join(said))) >= 12
    assert {said[number + 1] for number in starts} == {PROCESSORS[model]}
    assert_same(finished_world, world)


@emulated
@pytest.mark.thorough
def test_a_killed_run_goes_on_on_another_processor_to_the_same_bytes(world: World, tmp_path: Path) -> None:
    whole = outs(world, *FOLDERS)
    process = start(world, "exec python stages/ppo.py", tmp_path / "log")
    until(lambda: world.newest("ppo") == 1, process)
    process.kill()
    process.wait()
    shutil.rmtree(world / "models/ppo")
    other = World(world.folder, emulating("Haswell", tmp_path / "bin"))
    first, *said = other.run("python", "stages/ppo.py").splitlines()
    assert first == PROCESSORS["Haswell"] != describe()
    assert "ppo: goes on from its checkpoint of step 1" in said
    again = outs(world, *FOLDERS)
    assert whole.keys() == again.keys()
    assert [name for name in whole if whole[name] != again[name]] == []
