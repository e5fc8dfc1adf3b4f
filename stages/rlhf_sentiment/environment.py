"""What a run's bytes depend on beside commit and settings: libraries, processor, device, threads.

It is written to runs/environment, outside DVC's outs, which must not depend on the machine.
"""

import json
import platform
import sys
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
    """Kind of processor; where torch is loaded, also its instruction set, the threads and the CUDA device."""
    found: dict[str, str | int] = {"system": platform.system(), "processor": platform.machine()}
    if "torch" in sys.modules:
        import torch

        found |= {"instructions": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads()}
        if torch.cuda.is_available():
            found["cuda"] = torch.cuda.get_device_name()
    return found


def record(stage: str) -> None:
    """Write what this run of a stage ran on."""
    _FOLDER.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"libraries": libraries(), **machine()}, indent=2)
    (_FOLDER / f"{stage}.json").write_text(text + "\n", encoding="utf-8")


def changes(stage: str, pins: Path = Path("requirements.txt")) -> list[str]:
    """A line for each library that is not what the stage's last run here had, or, where it has none, what is pinned."""
    try:
        before, had = json.loads((_FOLDER / f"{stage}.json").read_text(encoding="utf-8"))["libraries"], "the last run here had"
    except (OSError, ValueError, KeyError, TypeError):
        lines = pins.read_text(encoding="utf-8").splitlines() if pins.is_file() else []
        before, had = dict(line.split(";")[0].strip().split("==") for line in lines if "==" in line), "requirements.txt pins"
    now = {name: number.split("+")[0] for name, number in libraries().items()}  # torch's "+cpu" is the build at hand
    return [
        f"{name} is {now[name]}, and {had} {was}: its bytes may differ"
        for name, was in before.items()
        if name in now and now[name] != str(was).split("+")[0]
    ]
