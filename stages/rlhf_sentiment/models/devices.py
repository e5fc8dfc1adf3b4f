"""Choose the device of a stage, seed its random numbers, and set its precision."""

import os
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from transformers import logging as transformers_logging

from ..engine.arithmetic import Computing, why_other_kernels
from ..engine.elsewhere import why_not_portable
from ..engine.errors import StageError
from ..engine.messages import warn
from .exchange import join
from .kernels import use_portable_products

_warned: set[str] = set()


def set_up(settings: Computing, name: str) -> torch.device:
    """Seed every random generator, and return the device of `prepare_device`. Where there are several ranks, join them."""
    make_deterministic(settings.seed)
    device = prepare_device(settings, name)
    join(device)
    return device


def prepare_device(settings: Computing, name: str) -> torch.device:
    """Fix how torch computes in this process, and return the device. Portable arithmetic is the CPU's.

    Args:
        settings: the settings of arithmetic and of the device.
        name: the stage, for warnings.

    Raises:
        StageError: this machine has no such device.
    """
    if settings.threads != "auto":
        torch.set_num_threads(settings.threads)
    if why := why_other_kernels(settings):
        how = "set it in params.yaml, and start a process that imports a name from rlhf_sentiment before numpy and torch"
        _warn_once(name, f"this process does not compute with arithmetic: {settings.arithmetic}, because {why}; {how}")
    if settings.arithmetic == "fast":
        return resolve_device(settings.device)
    if why_not_portable() is None and (reason := use_portable_products()):
        _warn_once(name, f"{reason}, so products are slower and bytes may differ; install the torch of requirements.txt")
    return torch.device("cpu")


def _warn_once(name: str, text: str) -> None:
    if text not in _warned:
        _warned.add(text)
        warn(name, text)


def resolve_device(name: str) -> torch.device:
    """Return the device that the setting `device` names. `auto` is CUDA where available, else MPS, else the CPU.

    Raises:
        StageError: this machine has no such device.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, is_there in there.items() if is_there))
    device = torch.device(name)
    if not there[device.type] or (device.index or 0) >= max(torch.cuda.device_count(), 1):
        have = ", ".join(kind for kind, is_there in there.items() if is_there)
        raise StageError(f"device: {name} is not available (this machine has {have}); set `device: auto`")
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def make_deterministic(seed: int) -> None:
    """Seed every random generator, and make torch use deterministic algorithms.

    An operation without a deterministic algorithm runs with a warning, because some devices have no other.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Otherwise torch also fills every new tensor with NaN first, which takes a tenth of a PPO step's time on a CPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def random_states() -> dict[str, Any]:
    """Return the state of every random generator, as tensors and plain values, for a checkpoint."""
    numpy: dict[str, Any] = np.random.get_state(legacy=False)
    numpy["state"]["key"] = numpy["state"]["key"].tolist()
    return {
        "python": random.getstate(),
        "numpy": numpy,
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),  # empty without CUDA
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Set every random generator to a state from `random_states`."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    torch.cuda.set_rng_state_all(states["cuda"])


def quiet() -> None:
    """Silence libraries, so that the terminal shows only the stage's own lines."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)


@contextmanager
def precision(dtype: str, device: torch.device) -> Iterator[None]:
    """Compute matrix products in `dtype` inside the block. Weights, sums, log-probabilities and losses stay float32."""
    with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
        yield
