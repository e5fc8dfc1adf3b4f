"""The same commit gives the same bytes for every user and on every machine: `make verify`."""

import shutil
import subprocess
from pathlib import Path

import pytest

from .conftest import World, checkout, outs, tiny_params

FOLDERS = ("data", "models", "metrics", "plots", "reports")
SECRET = "hf_itIsNobodysBusiness"  # noqa: S105 (none)
# The environment of another user's machine.
ELSEWHERE = {
    "USER": "somebody",
    "LOGNAME": "somebody",
    "LANG": "tr_TR.UTF-8",
    "LC_ALL": "C",
    "TZ": "Pacific/Kiritimati",
    "PYTHONHASHSEED": "4242",
    "HF_TOKEN": SECRET,
    # A stage overrides these.
    "ATEN_CPU_CAPABILITY": "default",
    "MKL_CBWR": "AVX2",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_CORETYPE": "Nehalem",
}
# Where the system can, the other machine has one core.
ONE_CORE = ("taskset", "--cpu-list", "0") if shutil.which("taskset") else ()


def assert_same(one: World, other: World) -> None:
    first, second = outs(one, *FOLDERS), outs(other, *FOLDERS)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    assert (one / "dvc.lock").read_bytes() == (other / "dvc.lock").read_bytes()


@pytest.mark.thorough
def test_a_second_clone_elsewhere_gives_the_same_bytes(finished_world: World, tmp_path: Path) -> None:
    home = tmp_path / "home of somebody"
    home.mkdir()
    world = checkout(tmp_path / "another folder" / "clone", tiny_params(), ELSEWHERE | {"HOME": str(home)})
    said = world.run(*ONE_CORE, "dvc", "repro")
    assert said.count("OMP_NUM_THREADS=2 (was 1)") == len(world.stages_run(said))
    assert_same(finished_world, world)
    written = outs(world, *FOLDERS, "runs", ".checkpoints")
    assert [name for name, content in written.items() if SECRET.encode() in content] == []
    assert SECRET not in said


@pytest.mark.thorough
def test_two_runs_with_one_thread_give_the_same_bytes(tmp_path: Path) -> None:
    """Two simultaneous runs, each with one thread, give the same bytes."""
    worlds = [checkout(tmp_path / name, tiny_params() | {"threads": 1}) for name in ("one", "two")]
    runs = [
        subprocess.Popen(["dvc", "repro"], cwd=world.folder, env=world.environment(), stdout=subprocess.DEVNULL)
        for world in worlds
    ]
    assert [run.wait() for run in runs] == [0, 0]
    assert '"threads": 1' in (worlds[0] / "runs/environment/ppo.json").read_text()
    assert_same(*worlds)
