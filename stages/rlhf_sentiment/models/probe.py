"""Time the matrix products of a model in float32 and in bfloat16, to learn which is faster on this device."""

import time

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from .devices import precision

_TOKENS = 128  # rows of a product; more take longer and give about the same ratio
_LARGEST = 2048  # rows and columns of a weight that are timed
_SECONDS = 0.15  # all rounds together; loading the kernels comes on top


def shapes_of(model: PreTrainedModel) -> list[tuple[int, int]]:
    """Return input and output size of each kind of product in a model, at most 2,048 each, without repeats."""
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

    Other programs on the same cores must not change the ratio of the two. So a processor computes in one thread, and only the
    time that this thread runs counts. Each product is timed alone, in both types in turn, and its shortest time counts.

    Args:
        shapes: input and output size of each product.
        device: where to compute.
    """
    clock, threads = time.perf_counter, torch.get_num_threads()
    if device.type == "cpu":
        clock = time.thread_time
        torch.set_num_threads(1)
    operands = [
        (torch.full((_TOKENS, rows), 0.5, device=device), torch.full((columns, rows), 0.5, device=device))
        for rows, columns in shapes
    ]

    def once(dtype: str, x: torch.Tensor, weight: torch.Tensor) -> float:
        begin = clock()
        with precision(dtype, device):
            functional.linear(x, weight)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return clock() - begin

    def each() -> list[tuple[float, float]]:
        return [(once("float32", *product), once("bfloat16", *product)) for product in operands]

    try:
        each()  # loads the kernels
        rounds = [each()]
        end = time.perf_counter() + _SECONDS
        while time.perf_counter() < end:
            rounds.append(each())
    finally:
        torch.set_num_threads(threads)
    best = torch.tensor(rounds, dtype=torch.float64).amin(dim=0).sum(dim=0)
    return dict(zip(("float32", "bfloat16"), best.tolist(), strict=True))
