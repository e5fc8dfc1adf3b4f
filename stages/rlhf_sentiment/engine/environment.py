"""What a run's bytes depend on beside commit and settings: libraries, processor, device, threads, variables.

It is written to runs/environment, outside DVC's outs, which must not depend on the machine.
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
    "safetensors",
    "scikit-learn",
    "scipy",
    "statsmodels",
    "tokenizers",
    "torch",
    "transformers",
    "trl",
)
# How the names begin of variables that change arithmetic or threads: of the linear algebra, of OpenMP, of numpy, the C
# library and torch, of the GPU. LD_PRELOAD can put any of these in another's place.
VARIABLES = (
    *("BLIS_", "GOTO_", "MKL_", "OPENBLAS_", "VECLIB_"),
    *("GOMP_", "KMP_", "LIBOMP_", "OMP_", "RAYON_"),
    *("GLIBC_TUNABLES", "LD_PRELOAD", "NPY_", "NUMEXPR_"),
    *("ATEN_", "DNNL_", "ONEDNN_", "PYTORCH_", "TORCH_"),
    *("CUBLAS", "CUDA_VISIBLE_", "CUDNN_", "NVIDIA_TF32"),
)
# Those of them that change speed, and no byte. scikit-learn sets some of them where it is loaded.
_SPEED_ALONE = {"GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "OMP_WAIT_POLICY"}
_FOLDER = Path("runs/environment")


def libraries() -> dict[str, str]:
    """Name -> version of Python and of each of `LIBRARIES` that is installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine() -> dict[str, str | int]:
    """The processor; where torch is loaded, also its instruction set, the threads and the CUDA devices."""
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


def variables() -> dict[str, str]:
    """The environment variables that tell the libraries how to compute, and with how many threads."""
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(VARIABLES)}


def arithmetic() -> dict[str, str]:
    """Those of `variables` that can change a byte."""
    return {name: value for name, value in variables().items() if name not in _SPEED_ALONE}


def code(root: Path) -> list[tuple[str, str]]:
    """Name and hash of the source of each module below `root` that is loaded, as it was when this was first called.

    A stage calls it as soon as its modules are loaded: what is edited while it runs is not what runs.
    """
    files = {Path(file).resolve() for module in list(sys.modules.values()) if (file := getattr(module, "__file__", None))}
    return [(file.relative_to(root).as_posix(), _source(file)) for file in sorted(files) if file.is_relative_to(root)]


def edited(root: Path) -> list[str]:
    """The modules of `code` whose source is another by now."""
    return [name for name, was in code(root) if not (root / name).is_file() or sha256(root / name) != was]


@cache
def _source(file: Path) -> str:
    return sha256(file)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record(stage: str) -> None:
    """Write what this run of a stage ran on."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"libraries": libraries(), **machine(), "variables": variables()}, indent=2)
    (_FOLDER / f"{stage}.json").write_text(text + "\n", encoding="utf-8")


def changes(stage: str, pins: Path = Path("requirements.txt")) -> list[str]:
    """A line for each library that is not what the stage's last run here had, or, where it has none, what is pinned."""
    try:
        before = dict(json.loads((_FOLDER / f"{stage}.json").read_text(encoding="utf-8"))["libraries"])
        had = "the last run here had"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        lines = pins.read_text(encoding="utf-8").splitlines() if pins.is_file() else []
        pinned = (line.split()[0].split(";")[0].partition("==") for line in lines if line[:1].isalpha() and "==" in line)
        before, had = {name: number for name, _, number in pinned}, "requirements.txt pins"
    now = {name: number.split("+")[0] for name, number in libraries().items()}  # torch's "+cpu" is the build at hand
    return [
        f"{name} is {now[name]}, and {had} {was}: its bytes may differ"
        for name, was in before.items()
        if name in now and now[name] != str(was).split("+")[0]
    ]
