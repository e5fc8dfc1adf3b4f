"""The settings `arithmetic` and `threads`: the environment variables that they set, when they act, and what they refuse."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rlhf_sentiment.engine import arithmetic
from rlhf_sentiment.engine.arithmetic import PINS, SET_HERE, Arithmetic, Computing, pin
from rlhf_sentiment.engine.errors import ConfigError
from rlhf_sentiment.engine.params import load
from rlhf_sentiment.models import devices

from .closure import STAGES
from .conftest import ROOT, World, assert_names

THREADS = {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "3"}
OWN = (*PINS, *THREADS)
PLAIN = {name: value for name, value in os.environ.items() if name not in (*OWN, SET_HERE)}
# What a stage finds in its environment when it imports its libraries.
PROGRAM = f"""
import json, os, sys
sys.path[0] = {str(STAGES)!r}
from rlhf_sentiment.engine.start import begin
begin("sample", "", {{"base": []}}, {{"base": []}})
assert "numpy" not in sys.modules
import numpy
from rlhf_sentiment.engine import arithmetic
print(json.dumps([dict(os.environ), arithmetic._loaded_before]))
"""


def started(folder: Path, *arguments: str, **variables: str) -> tuple[dict[str, str], str]:
    """Start a stage in `folder` up to the import of its libraries. Return its environment and its messages."""
    command = [sys.executable, "-c", PROGRAM, "base", *arguments]
    done = subprocess.run(command, cwd=folder, env=PLAIN | variables, capture_output=True, text=True, check=True)
    found, loaded_before = json.loads(done.stdout)
    assert loaded_before == []
    return found, done.stderr


def write(folder: Path, name: str = "params.yaml", **settings: Any) -> None:
    (folder / name).write_text(yaml.safe_dump(settings))


def test_portable_sets_every_variable_before_numpy_is_loaded(tmp_path: Path) -> None:
    write(tmp_path, arithmetic="portable", threads=3)
    found, said = started(tmp_path)
    assert {name: found.get(name) for name in OWN} == PINS | THREADS
    assert said == ""
    assert PINS["ATEN_CPU_CAPABILITY"] == "avx2"
    assert PINS["MKL_CBWR"] == "COMPATIBLE"
    assert PINS["ONEDNN_MAX_CPU_ISA"] == "AVX2"


def test_portable_overrides_the_environment_with_one_line(tmp_path: Path) -> None:
    write(tmp_path, arithmetic="portable", threads=3)
    others = {"DNNL_MAX_CPU_ISA": "AVX512_CORE", "OMP_THREAD_LIMIT": "1", "OPENBLAS_VERBOSE": "2", "OMP_PROC_BIND": "true"}
    found, said = started(tmp_path, MKL_CBWR="AVX2", OMP_NUM_THREADS="1", ATEN_CPU_CAPABILITY="avx2", **others)
    assert {name: found.get(name) for name in OWN} == PINS | THREADS
    assert [name for name in others if name in found] == ["OPENBLAS_VERBOSE", "OMP_PROC_BIND"], "these change no byte"
    assert "Core: Haswell" in said, "OpenBLAS says which kernels it uses"
    (line,) = (line for line in said.splitlines() if not line.startswith("Core:"))
    assert_names(line, "arithmetic: portable", "threads: 3", "MKL_CBWR=COMPATIBLE (was AVX2)", "OMP_NUM_THREADS=3 (was 1)")
    assert_names(line, "removed DNNL_MAX_CPU_ISA (was AVX512_CORE), OMP_THREAD_LIMIT (was 1)")
    assert "ATEN_CPU_CAPABILITY" not in line


@pytest.mark.parametrize("name", ["GLIBC_TUNABLES", "LD_PRELOAD"])
def test_a_variable_that_acted_before_python_is_reported(tmp_path: Path, name: str) -> None:
    write(tmp_path, arithmetic="portable", threads=2)
    value = "glibc.malloc.check=0" if name == "GLIBC_TUNABLES" else "libm.so.6"
    _, said = started(tmp_path, **{name: value})
    (line,) = said.splitlines()
    assert_names(line, name, "before Python", "start without it")
    write(tmp_path, arithmetic="fast", threads=2)
    assert started(tmp_path, **{name: value})[1] == ""


def test_fast_keeps_the_environment_but_for_the_threads(tmp_path: Path) -> None:
    write(tmp_path, arithmetic="fast", threads="auto")
    found, said = started(tmp_path, MKL_CBWR="AVX2", OMP_NUM_THREADS="1")
    assert {name: found[name] for name in OWN if name in found} == {"MKL_CBWR": "AVX2", "OMP_NUM_THREADS": "1"}
    assert said == ""
    write(tmp_path, arithmetic="fast", threads=3)
    found, said = started(tmp_path, OMP_NUM_THREADS="1")
    assert {name: found[name] for name in OWN if name in found} == THREADS
    assert_names(said, "OMP_NUM_THREADS=3 (was 1)")


@pytest.mark.parametrize(
    "arguments",
    [
        ("--params", "other.yaml"),
        ("--params=other.yaml",),
        ("--par", "other.yaml"),
        ("--param=other.yaml",),
    ],
)
def test_the_file_of_the_command_line_counts(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    write(tmp_path, arithmetic="fast", threads="auto")
    write(tmp_path, "whole.yaml", arithmetic="portable", threads=3)
    write(tmp_path, "other.yaml", extends="whole.yaml")
    assert started(tmp_path, *arguments)[0]["MKL_CBWR"] == "COMPATIBLE"


@pytest.mark.parametrize("text", ["", "arithmetic: [", "arithmetic: quick\nthreads: 2\n", "seed: 1\n", None])
def test_settings_that_cannot_be_read_are_left_to_the_stage(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "params.yaml").write_text(text)
    found, said = started(tmp_path)
    assert [name for name in OWN if name in found] == []
    assert said == ""


def settings(**changes: Any) -> dict[str, Any]:
    return {"arithmetic": "portable", "threads": 2, "launcher": None, "seed": 1, "device": "auto"} | changes


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"device": "cuda"}, ["device: cuda", "arithmetic: fast", "cpu"]),
        ({"device": "mps"}, ["device: mps", "arithmetic: fast"]),
        ({"threads": "auto"}, ["threads: auto", "2", "arithmetic: fast"]),
        ({"threads": 0}, ["threads:", "1 to 1024", "auto", "got 0"]),
        ({"threads": 2.0}, ["threads:", "got 2.0"]),
        ({"threads": True}, ["threads:", "got True"]),
        ({"threads": "all"}, ["threads:", "got 'all'"]),
        ({"arithmetic": "quick"}, ["arithmetic:", "portable", "fast", "got 'quick'"]),
    ],
)
def test_what_cannot_be_portable_is_refused_in_one_line(tmp_path: Path, changes: Any, parts: list[str]) -> None:
    write(tmp_path, **settings(**changes))
    with pytest.raises(ConfigError) as error:
        load(Computing, tmp_path / "params.yaml")
    (line,) = str(error.value).splitlines()
    assert_names(line, *parts)
    if not {"threads", "arithmetic"} & changes.keys():
        write(tmp_path, **settings(**changes, arithmetic="fast"))
        load(Computing, tmp_path / "params.yaml")


def test_bfloat16_is_refused_where_the_stage_loads_it(tmp_path: Path) -> None:
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["ppo"]["dtype"] = "bfloat16"
    write(tmp_path, **tree)
    import ppo

    with pytest.raises(ConfigError) as error:
        load(ppo.Params, tmp_path / "params.yaml")
    assert_names(error.value, "ppo.dtype: bfloat16", "arithmetic: fast", "float32")
    write(tmp_path, **tree | {"arithmetic": "fast"})
    load(ppo.Params, tmp_path / "params.yaml")


def test_portable_computes_on_the_cpu_with_its_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    threads = torch.get_num_threads()
    try:
        assert devices.set_up(Computing(**settings(threads=3)), "x") == torch.device("cpu")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_the_tests_themselves_compute_portably(capsys: pytest.CaptureFixture[str]) -> None:
    devices.set_up(Computing(**settings()), "x")
    assert capsys.readouterr().err == ""
    assert torch.backends.cpu.get_cpu_capability() == "AVX2"


@pytest.fixture
def variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a test change the variables of this process, and forget what was said."""
    monkeypatch.setattr(arithmetic, "_loaded_before", [])
    monkeypatch.setattr(devices, "_warned", set())
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.usefixtures("variables")
def test_a_process_that_loaded_the_libraries_before_is_warned_once(capsys: pytest.CaptureFixture[str]) -> None:
    del os.environ["MKL_CBWR"]
    pin(Arithmetic(arithmetic="portable", threads=2), "x")
    assert os.environ["MKL_CBWR"] == "COMPATIBLE"
    devices.set_up(Computing(**settings()), "train_ppo")
    devices.set_up(Computing(**settings()), "train_ppo")
    pin(Arithmetic(arithmetic="portable", threads=2), "x")  # the variables are right now, but came too late
    devices.set_up(Computing(**settings()), "train_ppo")
    (line,) = capsys.readouterr().err.splitlines()
    assert_names(line, "train_ppo: warning", "arithmetic: portable", "numpy and torch", "params.yaml", "rlhf_sentiment before")


@pytest.mark.usefixtures("variables")
def test_settings_that_differ_from_those_of_the_process_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    devices.set_up(Computing(**settings(arithmetic="fast")), "train_ppo")
    (line,) = capsys.readouterr().err.splitlines()
    assert_names(line, "does not compute with arithmetic: fast", "it began with arithmetic: portable")
    del os.environ["MKL_CBWR"]  # as in a process that began with `fast`
    devices.set_up(Computing(**settings(arithmetic="fast")), "train_ppo")
    assert capsys.readouterr().err == ""
    devices.set_up(Computing(**settings()), "train_ppo")
    (line,) = capsys.readouterr().err.splitlines()
    assert_names(line, "does not compute with arithmetic: portable", "it began with arithmetic: fast")


def test_a_child_with_other_settings_begins_without_the_variables_of_its_parent(tmp_path: Path) -> None:
    write(tmp_path, arithmetic="portable", threads=3)
    parent, _ = started(tmp_path)
    write(tmp_path, arithmetic="fast", threads="auto")
    child, said = started(tmp_path, **{name: parent[name] for name in (*OWN, SET_HERE)})
    assert [name for name in (*OWN, SET_HERE) if name in child] == []
    assert said == ""


@pytest.mark.usefixtures("variables")
def test_a_processor_without_avx2_is_given_no_kernel_that_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "why_not_portable", lambda: "this processor lacks AVX2")
    monkeypatch.setattr(devices, "why_not_portable", lambda: "this processor lacks AVX2")
    pin(Arithmetic(arithmetic="portable", threads=2), "x")
    assert [name for name in PINS if name in os.environ] == []
    assert os.environ["OMP_NUM_THREADS"] == "2"
    monkeypatch.setattr(devices, "use_portable_products", lambda: pytest.fail("oneDNN's products need AVX2"))
    assert devices.set_up(Computing(**settings()), "x") == torch.device("cpu")


def test_a_reason_why_products_are_slow_is_a_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(devices, "_warned", set())
    monkeypatch.setattr(devices, "use_portable_products", lambda: "torch 9 has no operator x")
    devices.set_up(Computing(**settings()), "ppo")
    (line,) = capsys.readouterr().err.splitlines()
    assert_names(line, "ppo: warning", "torch 9", "requirements.txt")


@pytest.mark.slow
def test_the_first_import_of_the_python_interface_sets_the_variables(tmp_path: Path) -> None:
    write(tmp_path, arithmetic="portable", threads=2)
    program = """
import sys, os
{first}
from rlhf_sentiment import RLHFConfig
from rlhf_sentiment.engine.arithmetic import _loaded_before
import torch
print(os.environ["MKL_CBWR"], torch.backends.cpu.get_cpu_capability(), *_loaded_before)
"""
    plain = PLAIN | {"PYTHONPATH": str(STAGES)}
    for first, wanted in (("", "COMPATIBLE AVX2"), ("import numpy", "COMPATIBLE AVX2 numpy")):
        command = [sys.executable, "-c", program.format(first=first)]
        done = subprocess.run(command, cwd=tmp_path, env=plain, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == wanted


def test_every_stage_of_the_tiny_world_computed_portably(finished_world: World) -> None:
    recorded = [json.loads(path.read_text()) for path in (finished_world / "runs/environment").glob("*.json")]
    assert len(recorded) > 8
    for run in recorded:
        assert {name: run["variables"].get(name) for name in PINS} == PINS
        if "threads" in run:
            assert (run["instructions"], run["threads"]) == ("AVX2", 2)
