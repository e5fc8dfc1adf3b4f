"""Time the matrix products of a model in float32 and in bfloat16, to learn which is faster on this device."""

import time

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .devices import precision

_TOKENS = 128  # rows of a product; more take longer and give about the same ratio
_LARGEST = 4096  # rows and columns of a weight that are timed
_SECONDS = 0.25  # all rounds together; loading the kernels comes on top


def shapes_of(model: PreTrainedModel) -> list[tuple[int, int]]:
    """Return input and output size of each kind of product in a model, at most 4,096 each, without repeats."""
    found = set()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            found.add((module.in_features, module.out_features))
        elif isinstance(module, Conv1D):
            found.add((module.nx, module.nf))
    return sorted({(min(rows, _LARGEST), min(columns, _LARGEST)) for rows, columns in found})


@torch.no_grad()
def seconds_of(shapes: list[tuple[int, int]], device: torch.device) -> dict[str, float]:
    """Return the seconds that one product of each shape takes, with casts as in training, by type.

    Both types are timed in turn, several times. The shortest time counts, because other programs make some times longer.

    Args:
        shapes: input and output size of each product.
        device: where to compute.
    """
    operands = [
        (torch.full((_TOKENS, rows), 0.5, device=device), torch.full((columns, rows), 0.5, device=device))
        for rows, columns in shapes
    ]

    def once(dtype: str) -> float:
        begin = time.perf_counter()
        for x, weight in operands:
            with precision(dtype, device):
                functional.linear(x, weight)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - begin

    best = {dtype: once(dtype) for dtype in ("float32", "bfloat16")}  # loads the kernels
    end = time.perf_counter() + _SECONDS
    while time.perf_counter() < end:
        best = {dtype: min(seconds, once(dtype)) for dtype, seconds in best.items()}
    return best
