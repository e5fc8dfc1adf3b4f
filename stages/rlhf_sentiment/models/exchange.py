"""What the ranks of a stage share: rows, results and decisions.

Each rank computes its own rows. Then all ranks get the results of all rows, in the order of one process. With one rank, these
functions return what they are given.
"""

import atexit
import os
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..engine.errors import StageError
from ..engine.ranks import alive, is_main, rank, size
from ..engine.stopping import ask_to_stop, requested_stop

T = TypeVar("T")
N = TypeVar("N")


def join(device: torch.device) -> None:
    """Let this rank meet the others. It waits until all have come.

    Raises:
        StageError: the machine has too few GPUs, or the device is neither a CPU nor a GPU of CUDA.
    """
    if size() == 1:
        return
    alive()
    if device.type not in ("cpu", "cuda"):
        raise StageError(f"several processes compute on the CPU or with CUDA, not on {device.type}; set `device: cpu`")
    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", size())), torch.cuda.device_count()
    if device.type == "cuda" and here > gpus:
        raise StageError(f"{here} processes need as many GPUs, and this machine has {gpus}; lower launcher")
    from accelerate import PartialState  # its import takes a second, which one process does not need here

    if not torch.distributed.is_initialized():
        atexit.register(PartialState(cpu=device.type == "cpu").destroy_process_group)


def own_rows(count: int, blocks: int = 1) -> Tensor:
    """Return the rows of a batch that belong to this rank, about count / size of them.

    Args:
        count: the number of rows, B.
        blocks: into how many equal parts the batch is cut, such as minibatches. Each rank has its share of each.
    """
    return _rows_of_each(count, blocks)[rank()]


def own_parts(count: int, most: int, device: torch.device) -> list[Tensor]:
    """Return the rows of this rank in parts of at most `most`. A rank without rows has no part."""
    return [rows for rows in own_rows(count).to(device).split(most) if len(rows)]


def _rows_of_each(count: int, blocks: int) -> list[Tensor]:
    """Return the rows of each rank."""
    shares = [block.tensor_split(size()) for block in torch.arange(count).chunk(blocks)]
    return [torch.cat(own) for own in zip(*shares, strict=True)]


def _order(count: int, blocks: int) -> Tensor:
    """Return where each row of the batch stands among the rows of all ranks, those of rank 0 first, (B,)."""
    return torch.cat(_rows_of_each(count, blocks)).argsort()


def whole(part: Tensor, count: int, blocks: int = 1) -> Tensor:
    """Return the rows of all ranks in the order of the batch: (B of this rank, ...) -> (B, ...).

    Args:
        part: the results for `own_rows`.
        count, blocks: as in `own_rows`.
    """
    if size() == 1:
        return part
    return torch.cat(_of_all([part.cpu()]))[_order(count, blocks)].to(part.device)


def joined(parts: list[Tensor]) -> Tensor:
    """Concatenate parts of one number for each row. A rank without rows has none: [(b,)] -> (B,)."""
    return torch.cat(parts) if parts else torch.empty(0)


def whole_list(part: list[T], count: int, blocks: int = 1) -> list[T]:
    """Return the plain values of all rows in the order of the batch. The arguments are those of `whole`."""
    if size() == 1:
        return part
    found = _of_all(part)
    return [found[place] for place in _order(count, blocks).tolist()]


def of_each_rank(value: T) -> list[T]:
    """Return the plain value of each rank."""
    return [value] if size() == 1 else _of_all([value])


def own_share(items: Sequence[T]) -> Sequence[T]:
    """Return every N-th item for N ranks, so that each rank has small and large ones of a sorted list."""
    return items[rank() :: size()]


def summed(value: N) -> N:
    """Return the sum of a number or an array over all ranks."""
    total: Any = sum(of_each_rank(value))
    return total


def _of_all(part: list[T]) -> list[T]:
    from accelerate.utils import gather_object

    alive()
    found: list[T] = gather_object(part)
    return found


def of_main(decide: Callable[[], T]) -> T:
    """Return what rank 0 decides, a plain value. The others do not call `decide`."""
    if size() == 1:
        return decide()
    from accelerate.utils import broadcast_object_list

    alive()
    decided: list[Any] = broadcast_object_list([decide() if is_main() else None])
    return decided[0]


def stops() -> bool:
    """Return whether to stop after this step, as rank 0 knows. The other ranks get no signal."""
    if size() == 1:
        return requested_stop() is not None
    number = of_main(lambda: None if (stopped := requested_stop()) is None else stopped.number)
    if number is not None:
        ask_to_stop(number)
    return number is not None
