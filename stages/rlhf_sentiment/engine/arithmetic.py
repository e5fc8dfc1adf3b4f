"""Fix how numpy and torch compute, so that every x86-64 Linux processor with AVX2 computes the same bytes.

The libraries choose kernels by the vendor and the instruction set of the processor. Kernels that add in another order, or
approximate `exp` otherwise, differ in the last bits. With `arithmetic: portable`, environment variables name one set of kernels
for all processors. The libraries read these variables when they are loaded, so engine/command_line.py sets
them first. models/kernels.py replaces the matrix products of torch. docs/reproducibility.md has the evidence.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, model_validator

from .elsewhere import why_not_portable
from .errors import ConfigError
from .messages import shown, warn
from .params import Device, Seed, Settings, load

# What each variable fixes. The first three are for torch: its own kernels, the kernels of MKL (the only ones that MKL has in
# common for all vendors), and those of oneDNN. The next two are for numpy and scipy: numpy's kernels, and OpenBLAS's. numpy
# also leaves out its AVX2 kernels, X86_V3, because qemu emulates one of them wrongly, and qemu tests these settings.
PINS = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR",
    "OPENBLAS_CORETYPE": "Haswell",
    # OpenBLAS starts at most one thread for each core, so two threads would be one on a machine with one core.
    "OPENBLAS_NUM_THREADS": "1",
    # Otherwise OpenMP and MKL may use fewer threads than these variables say.
    "OMP_DYNAMIC": "FALSE",
    "MKL_DYNAMIC": "FALSE",
    # oneDNN keeps compiled code for so many shapes of products. Batches have many, and 1,024, its default, take 0.3 GiB.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256",
}
# The variables that set the number of threads of torch, MKL and oneDNN.
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
# Prefixes of other variables that change kernels, threads or the pixels of text.
_OTHERS = ("ATEN_", "DNNL_", "FREETYPE_", "GOTO_", "MKL_", "NPY_DISABLE_", "NPY_ENABLE_", "ONEDNN_", "OPENBLAS_")
_OTHER_THREADS = {"OMP_THREAD_LIMIT"}
# Variables that act before Python runs, so that a stage cannot undo them.
TOO_EARLY = ("GLIBC_TUNABLES", "LD_PRELOAD")
_LIBRARIES = ("numpy", "torch")
_MOST_THREADS = 1024
# The variable with the names of those that a process has set. Its children remove these first, since their settings may differ.
SET_HERE = "RLHF_ARITHMETIC_VARIABLES"

# The libraries that were loaded before their variables were set.
_loaded_before: list[str] = []


def _number_or_auto(value: object) -> object:
    if value != "auto" and not (type(value) is int and 1 <= value <= _MOST_THREADS):
        raise ValueError(f"should be a whole number from 1 to {_MOST_THREADS}, or auto (got {shown(value)})")
    return value


class Arithmetic(Settings):
    """The settings of arithmetic, which stages without torch load too."""

    arithmetic: Literal["portable", "fast"]
    threads: Annotated[int | Literal["auto"], BeforeValidator(_number_or_auto)]

    @model_validator(mode="after")
    def _portable_has_a_number_of_threads(self) -> Self:
        if self.arithmetic == "portable" and self.threads == "auto":
            raise ValueError("threads: auto is another number on each machine; set a number such as 2, or `arithmetic: fast`")
        return self


class Products(Settings):
    """The setting of a section whose stage trains a model."""

    dtype: Literal["auto", "float32", "bfloat16"]


def _ranks_or_file(value: object) -> object:
    if value is None or (type(value) is int and 2 <= value <= _MOST_THREADS):
        return value
    if isinstance(value, str) and value.endswith((".yaml", ".yml", ".json")):
        return value
    raise ValueError(
        f"should be empty, a number of processes from 2, or a configuration file of accelerate (got {shown(value)})"
    )


class Launching(Arithmetic):
    """The settings that decide in how many processes a stage runs."""

    launcher: Annotated[int | str | None, BeforeValidator(_ranks_or_file)]

    @model_validator(mode="after")
    def _portable_is_one_process(self) -> Self:
        if self.arithmetic == "portable" and self.launcher is not None:
            raise ValueError(
                f"launcher: {self.launcher} needs `arithmetic: fast`, because several processes add in another order; or leave "
                "it empty"
            )
        return self


class Computing(Launching):
    """The settings of a stage that computes with torch."""

    seed: Seed
    device: Device

    @model_validator(mode="after")
    def _portable_is_float32_on_the_cpu(self) -> Self:
        if self.launcher is not None and self.device.startswith("cuda:"):
            raise ValueError(f"device: {self.device} is one GPU, and launcher asks for several processes; set `device: cuda`")
        if self.arithmetic == "fast":
            return self
        if self.device not in ("auto", "cpu"):
            raise ValueError(
                f"device: {self.device} needs `arithmetic: fast`, because portable arithmetic runs only on the CPU; or set cpu"
            )
        for name in type(self).model_fields:
            for key in ("dtype", "frozen_dtype"):
                if getattr(getattr(self, name), key, "float32") == "bfloat16":
                    why = "as portable arithmetic is float32 only; or set float32"
                    raise ValueError(f"{name}.{key}: bfloat16 needs `arithmetic: fast`, {why}")
        return self


def pin_for_stage(params: Path, name: str) -> None:
    """Set the variables that the settings of a stage ask for, before numpy and torch are loaded.

    Args:
        params: the file of settings.
        name: the stage, for messages.

    Settings that cannot be read change nothing here. The stage itself reports them.
    """
    with suppress(ConfigError):
        pin(load(Arithmetic, params), name)


def pin_for_python() -> None:
    """Set the variables for a script or a notebook that uses the Python interface, before its modules load numpy and torch.

    The settings are those of the current folder, or else of the repository.
    """
    path = Path("params.yaml")
    with suppress(ConfigError):
        pin(load(Arithmetic, path if path.is_file() else Path(__file__).parents[3] / path), "settings")


def pin(settings: Arithmetic, name: str) -> None:
    """Set the variables that `settings` ask for, and say on one line what the environment had instead.

    Args:
        settings: the settings of arithmetic.
        name: the stage, for the line.
    """
    had, wanted = {key: os.environ.get(key) for key in PINS}, wanted_variables(settings)
    for key in os.environ.pop(SET_HERE, "").split():
        os.environ.pop(key, None)
    others: list[str] = []
    if settings.arithmetic == "portable":
        own = [key for key in os.environ if key.startswith(_OTHERS) or key in _OTHER_THREADS]
        others = sorted(key for key in own if key not in wanted and "VERBOSE" not in key)
    changed = [f"{key}={value} (was {os.environ[key]})" for key, value in wanted.items() if os.environ.get(key, value) != value]
    removed = [f"{key} (was {os.environ[key]})" for key in others]
    for key in others:
        del os.environ[key]
    os.environ.update(wanted)
    if wanted:
        os.environ[SET_HERE] = " ".join(wanted)
    if any(os.environ.get(key) != value for key, value in had.items()):
        _loaded_before[:] = [library for library in _LIBRARIES if library in sys.modules]
    if did := [f"{verb} {', '.join(names)}" for verb, names in (("set", changed), ("removed", removed)) if names]:
        warn(name, f"arithmetic: {settings.arithmetic} and threads: {settings.threads} {' and '.join(did)}")
    early = [key for key in TOO_EARLY if settings.arithmetic == "portable" and os.environ.get(key)]
    if early:
        them = "it" if len(early) == 1 else "them"
        warn(name, f"{' and '.join(early)} took effect before Python started, and can change bytes; start without {them}")


def wanted_variables(settings: Arithmetic) -> dict[str, str]:
    """Return the environment variables that the settings ask for. A processor without AVX2 cannot run the kernels of `PINS`."""
    wanted = dict(PINS) if settings.arithmetic == "portable" and why_not_portable() is None else {}
    return wanted if settings.threads == "auto" else wanted | dict.fromkeys(_THREADS, str(settings.threads))


def why_other_kernels(settings: Arithmetic) -> str | None:
    """Return why this process computes otherwise than the settings say, or None.

    This happens only in a process that is not a stage, such as a notebook.
    """
    is_pinned = all(os.environ.get(key) == value for key, value in PINS.items()) and not _loaded_before
    if settings.arithmetic == "fast":
        return "it began with arithmetic: portable" if is_pinned else None
    if is_pinned or why_not_portable() is not None:
        return None
    return f"it loaded {' and '.join(_loaded_before)} first" if _loaded_before else "it began with arithmetic: fast"
