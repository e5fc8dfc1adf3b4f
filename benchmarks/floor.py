"""Measure the floor of a computation: the time that its matrix products take by themselves."""

import math
import time
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_ROUNDS = 3
# The place of the query among the arguments, and the number of products of the size of query @ key.
_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (0, 2),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (1, 5),
}


class Products(TorchDispatchMode):
    """Counts the matrix products that run inside the block, by operation, shapes, strides and types of their operands."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[Any, tuple[Any, ...]]] = Counter()
        self.attention_flop = 0.0  # floating-point operations of fused attention, which is not timed

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm, torch.ops.aten.baddbmm):
            operands = tuple((tuple(one.shape), one.stride(), one.dtype) for one in args if isinstance(one, torch.Tensor))
            self.counts[func, operands] += 1
        elif func.overloadpacket in _ATTENTION:
            first, products = _ATTENTION[func.overloadpacket]
            (*rows, queries, size), keys = args[first].shape, args[first + 1].shape[2]
            self.attention_flop += products * 2.0 * math.prod(rows) * queries * keys * size
        return func(*args, **kwargs or {})

    def flop(self) -> float:
        """Return the floating-point operations of all products."""
        return sum(count * _flop(operands) for (_, operands), count in self.counts.items())

    def seconds(self, device: torch.device) -> float:
        """Return the time of all products: the shortest of a few runs of each kind, times its number."""
        total = 0.0
        for (func, operands), count in self.counts.items():
            tensors = [
                torch.empty_strided(shape, stride, dtype=dtype, device=device).fill_(0.5) for shape, stride, dtype in operands
            ]
            times = []
            for _ in range(1 + _ROUNDS):
                begin = time.perf_counter()
                func(*tensors)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                times.append(time.perf_counter() - begin)
            total += count * min(times[1:])
        return total


def _flop(operands: tuple[Any, ...]) -> float:
    (*rows, inner), (*_, columns) = operands[-2][0], operands[-1][0]
    return 2.0 * math.prod(rows) * inner * columns
