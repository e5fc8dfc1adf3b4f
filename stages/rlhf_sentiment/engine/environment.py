"""Everything besides commit and settings that changes a run's bytes: libraries, processor, device, threads, variables.

Each stage writes this to runs/environment. The folder is not among DVC's outs, which must not depend on the machine.
"""

import hashlib
import json
import os
import platform
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = (
    "accelerate",
    "datasets",
    "datasketch",
    "matplotlib",
    "numpy",
    "pandas",
    "peft",
    "safetensors",
    "scikit-learn",
    "scipy",
    "statsmodels",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
)
# Prefixes of variables that change arithmetic or threads. The lines are: linear algebra, OpenMP, the C library and numpy,
# torch, the GPU. LD_PRELOAD can replace any of these libraries.
VARIABLES = (
    *("BLIS_", "GOTO_", "MKL_", "OPENBLAS_", "VECLIB_"),
    *("GOMP_", "KMP_", "LIBOMP_", "OMP_", "RAYON_"),
    *("GLIBC_TUNABLES", "LD_PRELOAD", "NPY_", "NUMEXPR_"),
    *("ATEN_", "DNNL_", "ONEDNN_", "PYTORCH_", "TORCH_"),
    *("CUBLAS", "CUDA_VISIBLE_", "CUDNN_", "NVIDIA_TF32"),
)
# The variables among these that change only speed. scikit-learn sets some of them when it is loaded.
_SPEED_ALONE = {"GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "OMP_WAIT_POLICY"}
_FOLDER = Path("runs/environment")


def libraries() -> dict[str, str]:
    """Return the versions of Python and of each of `LIBRARIES` that is installed, by name."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str | int]:
    """Return the processor. Where torch is loaded, also return its instruction set, threads and CUDA devices."""
    found: dict[str, str | int] = {"system": platform.system(), "machine": platform.machine()}
    cpus = Path("/proc/cpuinfo")
    models = [line for line in cpus.read_text().splitlines() if line.startswith("model name")] if cpus.is_file() else []
    found["processor"] = models[0].partition(":")[2].strip() if models else platform.processor()
    if "torch" in sys.modules:
        import torch

        found |= {"instructions": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}
        if torch.cuda.is_available():
            found |= {"cuda": torch.cuda.get_device_name(), "cuda_devices": torch.cuda.device_count()}
    return found


def bfloat16_instructions() -> list[str]:
    """Return the processor's instructions for bfloat16, as Linux names them. Virtual machines may hide its name."""
    cpus = Path("/proc/cpuinfo")
    words = cpus.read_text().split() if cpus.is_file() else []
    return sorted({"amx_bf16", "avx512_bf16", "avx_ne_convert", "bf16", "svebf16"}.intersection(words))


def variables() -> dict[str, str]:
    """Return the environment variables that change how the libraries compute, and with how many threads."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)}


def arithmetic() -> dict[str, str]:
    """Return the environment variables that can change a byte."""
    return {name: value for name, value in variables().items() if name not in _SPEED_ALONE}


def code(root: Path) -> list[tuple[str, str]]:
    """Return name and source hash of each loaded module below `root`. The hash is that of the first call.

    A stage calls this function as soon as its modules are loaded. A file that is edited later is not the code that runs.
    """
    files = {Path(file).resolve() for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    return [(file.relative_to(root).as_posix(), _source(file)) for file in sorted(files) if file.is_relative_to(root)]


def edited(root: Path) -> list[str]:
    """Return the modules whose source has changed since the first call of `code`."""
    return [name for name, was in code(root) if not (root / name).is_file() or sha256(root / name) != was]


@cache
def _source(file: Path) -> str:
    return sha256(file)


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record(stage: str) -> None:
    """Write the environment of this run of a stage."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"libraries": libraries(), **machine(), "variables": variables()}, indent=2)
    (_FOLDER / f"{stage}.json").write_text(text + "\n", encoding="utf-8")


def changes(stage: str, pins: Path = Path("requirements.txt")) -> list[str]:
    """Return a line for each library whose version has changed since the stage's last run here.

    Where there was no run, the versions are compared with those that `pins` has.
    """
    try:
        before = dict(json.loads((_FOLDER / f"{stage}.json").read_text(encoding="utf-8"))["libraries"])
        had = "the last run here had"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        lines = pins.read_text(encoding="utf-8").splitlines() if pins.is_file() else []
        pinned = (line.split()[0].split(";")[0].partition("==") for line in lines if line[:1].isalpha() and "==" in line)
        before, had = {name: number for name, _, number in pinned}, "requirements.txt pins"
    now = {name: number.split("+")[0] for name, number in libraries().items()}  # "+cpu" names a build of torch
    return [
        f"{name} is {now[name]}, but {had} {was}; outputs may have other bytes"
        for name, was in before.items()
        if name in now and now[name] != str(was).split("+")[0]
    ]
