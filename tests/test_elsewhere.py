"""Machines for which no bytes are promised: what they are called, and the line that a stage prints once."""

import json
import os
import platform
from pathlib import Path

import pytest

from rlhf_sentiment.engine import elsewhere
from rlhf_sentiment.engine.arithmetic import Arithmetic
from rlhf_sentiment.engine.command_line import Begun
from rlhf_sentiment.engine.elsewhere import warn_elsewhere, why_not_portable
from rlhf_sentiment.engine.params import Settings
from rlhf_sentiment.engine.stage import stage

from .conftest import assert_names

INTEL = "processor\t: 0\nflags\t\t: fpu sse2 fma avx avx2\nvmx flags\t: ept\n\nprocessor\t: 1\nflags\t\t: fpu\n"
ARM = "processor\t: 0\nBogoMIPS\t: 48.00\nFeatures\t: fp asimd\n"


def pretend(
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    cpuinfo: str | None = INTEL,
    system: str = "Linux",
    processor: str = "x86_64",
    libc: str = "glibc",
) -> None:
    """Let Python see another machine. `cpuinfo` is the text of /proc/cpuinfo, or None for a system without it."""
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: processor)
    monkeypatch.setattr(platform, "libc_ver", lambda: (libc, "2.36" if libc else ""))
    monkeypatch.setattr(elsewhere, "_PROCESSORS", folder / "cpuinfo")
    if cpuinfo is not None:
        (folder / "cpuinfo").write_text(cpuinfo)


@pytest.mark.parametrize(
    ("machine", "why"),
    [
        ({}, None),
        ({"processor": "aarch64", "cpuinfo": ARM}, "this processor is aarch64"),
        ({"processor": "ppc64le", "cpuinfo": None}, "this processor is ppc64le"),
        ({"system": "Darwin", "processor": "arm64", "cpuinfo": None}, "this system is macOS"),
        ({"system": "Darwin", "cpuinfo": None}, "this system is macOS"),
        ({"system": "Windows", "processor": "AMD64", "cpuinfo": None, "libc": ""}, "this system is Windows"),
        ({"system": ""}, "this system is unknown"),
        ({"libc": ""}, "the C library of this system is not glibc"),
        ({"libc": "musl"}, "the C library of this system is not glibc"),
        ({"cpuinfo": INTEL.replace(" avx2", "")}, "this processor lacks AVX2"),
        ({"cpuinfo": INTEL.replace(" fma", " fma4")}, "this processor lacks FMA"),
        ({"cpuinfo": INTEL.replace(" fma avx avx2", "")}, "this processor lacks AVX2 and FMA"),
    ],
    ids=str,
)
def test_a_machine_without_the_promise_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, machine: dict[str, str], why: str | None
) -> None:
    pretend(monkeypatch, tmp_path, **machine)
    assert why_not_portable() == why


@pytest.mark.parametrize("cpuinfo", [None, "", ARM])
def test_a_processor_without_flags_is_unknown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cpuinfo: str | None) -> None:
    pretend(monkeypatch, tmp_path, cpuinfo=cpuinfo)
    assert_names(why_not_portable(), "instructions", "unknown", "cpuinfo")


LINE = (
    "ppo: warning: arithmetic: portable promises its bytes for x86-64 Linux with AVX2; this processor is aarch64, "
    "so expect other bytes (docs/reproducibility.md)\n"
)


@pytest.fixture
def arm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return an empty repository on an ARM processor."""
    (tmp_path / "repository").mkdir()
    pretend(monkeypatch, tmp_path, processor="aarch64", cpuinfo=ARM)
    monkeypatch.chdir(tmp_path / "repository")
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return tmp_path / "repository"


def test_a_clone_says_each_reason_once(arm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        warn_elsewhere("ppo", "portable")
    assert capsys.readouterr().err == LINE
    pretend(monkeypatch, arm.parent, processor="riscv64", cpuinfo=None)
    for _ in range(3):
        warn_elsewhere("ppo", "portable")
    assert capsys.readouterr().err == LINE.replace("aarch64", "riscv64")
    pretend(monkeypatch, arm.parent, processor="aarch64")
    warn_elsewhere("ppo", "portable")
    assert capsys.readouterr().err == ""


def test_an_experiment_in_another_folder_asks_the_clone(
    arm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("DVC_ROOT", str(arm))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        warn_elsewhere("ppo", "portable")
        assert list((tmp_path / name).iterdir()) == []
    assert capsys.readouterr().err == LINE


def test_fast_arithmetic_and_a_machine_with_the_promise_say_nothing(
    arm: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    warn_elsewhere("ppo", "fast")
    pretend(monkeypatch, arm.parent)
    warn_elsewhere("ppo", "portable")
    assert capsys.readouterr().err == ""
    assert list(arm.iterdir()) == []


@pytest.mark.parametrize("fault", ["a file in place of the folder", "a folder in place of the file", "no permission", "bytes"])
def test_where_nothing_can_be_written_down_the_line_is_said_again(
    arm: Path, capsys: pytest.CaptureFixture[str], fault: str
) -> None:
    if fault == "a file in place of the folder":
        (arm / "runs").write_text("")
    elif fault == "a folder in place of the file":
        (arm / "runs/environment/elsewhere.txt").mkdir(parents=True)
    elif fault == "no permission":
        if os.geteuid() == 0:
            pytest.skip("root may write everywhere")
        arm.chmod(0o500)
    else:
        (arm / "runs/environment").mkdir(parents=True)
        (arm / "runs/environment/elsewhere.txt").write_bytes(b"\xff")
    for _ in range(2):
        warn_elsewhere("ppo", "portable")
    assert capsys.readouterr().err == 2 * LINE


class Other(Settings):
    """The settings of a stage that does not depend on arithmetic."""

    seed: int


@pytest.mark.parametrize(("schema", "expected"), [(Arithmetic, LINE), (Other, "")])
def test_a_stage_says_it_before_its_first_line_if_it_depends_on_arithmetic(
    arm: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    schema: type[Settings],
    expected: str,
) -> None:
    (arm / "params.yaml").write_text(json.dumps({"arithmetic": "portable", "threads": 2, "seed": 1}))
    for name in ("listen", "keep_freed_memory"):
        monkeypatch.setattr(f"rlhf_sentiment.engine.stage.{name}", lambda *_: None)
    said: list[str] = []

    def main(_: Settings) -> str:
        said.append(capsys.readouterr().err)
        return "done"

    stage(Begun("ppo", None, (), (), Path("params.yaml"), None, False), schema, main)
    assert said == [expected]
    assert capsys.readouterr() == ("ppo: wrote ; done\n", "")
