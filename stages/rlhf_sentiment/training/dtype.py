"""Choose the type of matrix products where the setting is `auto`: bfloat16 where it is clearly faster on this device.

    .checkpoints/dtype/KEY.json      what a probe found on this machine, for the products of one size of model

The probe runs once. Its choice is used until the file is deleted, so that two runs compute the same way.
"""

import hashlib
import json
import os
from contextlib import suppress
from math import inf
from threading import get_ident
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel

from ..engine import environment
from ..engine.arithmetic import Products
from ..engine.errors import StageError
from ..models.probe import seconds_of, shapes_of
from .checkpoints import Checkpoints, checkpoints_folder

S = TypeVar("S", bound=Products)

_CLEARLY = 1.2  # bfloat16 adds casts, and rounds more


def settled(settings: S, arithmetic: str, model: PreTrainedModel, kept: Checkpoints, device: torch.device | None = None) -> S:
    """Return settings whose `dtype` is float32 or bfloat16, and print what `auto` chose.

    Args:
        settings: a section with a `dtype`.
        arithmetic: portable arithmetic is float32.
        model: the model to train. The sizes of its products decide.
        kept: the checkpoints of the run. A run that resumes keeps its type.
        device: where the model will be. None: where it is.

    Raises:
        StageError: the checkpoints have a choice that is none.
    """
    if settings.dtype != "auto":
        return settings
    dtype = "float32"
    if arithmetic == "fast":
        match kept.choice("dtype", lambda: _probed(model, device or model.device)):
            case ("float32" | "bfloat16") as dtype, str(why):
                pass
            case _:
                file = kept.folder / "dtype.json"
                raise StageError(
                    f"{file} says neither float32 nor bfloat16; set {kept.stage}.dtype to one of them, for a new run"
                )
        print(f"{kept.stage}: computes products in {dtype} ({kept.stage}.dtype: auto; {why})", flush=True)
    return settings.model_copy(update={"dtype": dtype})


def _probed(model: PreTrainedModel, device: torch.device) -> tuple[str, str]:
    """Return the faster type on this machine and the reason, from the file of an earlier probe where there is one."""
    shapes = shapes_of(model)
    about = [shapes, str(device), environment.machine(), environment.bfloat16_instructions(), torch.__version__]
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
    file = checkpoints_folder() / "dtype" / f"{name}.json"
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        ratio = float(found["speed of bfloat16 relative to float32"])
        if not 0 < ratio < inf:
            raise ValueError(ratio)
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        seconds = seconds_of(shapes, device)
        ratio = round(seconds["float32"] / seconds["bfloat16"], 2)
        found = {"speed of bfloat16 relative to float32": ratio, "machine": environment.machine(), "products": shapes}
        with suppress(OSError):  # a run needs the file only to choose the same next time
            file.parent.mkdir(parents=True, exist_ok=True)
            aside = file.with_suffix(f".{os.getpid()}-{get_ident()}.part")  # another run may probe at the same time
            aside.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
            aside.replace(file)
    return "bfloat16" if ratio >= _CLEARLY else "float32", f"bfloat16 is {ratio} times as fast as float32 here"
