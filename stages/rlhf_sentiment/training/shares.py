"""Let transformers' Trainer train in several ranks as it does in one: the same batches, cut into shares, and the same loss."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import BatchSampler, DataLoader
from transformers import Trainer

from ..engine.errors import StageError
from ..engine.ranks import alive, rank, size
from ..models.sharing import of_each_rank


class Shares(BatchSampler):
    """This rank's share of each batch. accelerate's own shares repeat rows where an epoch's last batch is too small.

    A batch with fewer rows than ranks goes to all of them. The loss is a mean over what all ranks computed, so it is the same.
    """

    def __init__(self, rows: Iterable[int], batch_size: int) -> None:
        super().__init__(rows, batch_size, drop_last=False)

    def __iter__(self) -> Iterator[list[int]]:
        for batch in super().__iter__():
            count = len(batch)
            bounds = [count * k // size() for k in (rank(), rank() + 1)]
            yield batch[slice(*bounds)] if count >= size() else batch


class _Loader(DataLoader[Any]):
    """A loader of shares, which the Trainer tells the epoch."""

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the sampler of rows."""
        self.batch_sampler.sampler.set_epoch(epoch)  # type: ignore[union-attr]


def share_batches(trainer: Trainer, rows: Iterable[int], stage: str) -> None:
    """Give each rank its share of the batches of `rows`, an iterable with `set_epoch`.

    The rank whose own loss is not finite stops the stage `stage` with a StageError. The Trainer would report the mean only.
    """
    if size() == 1:
        return
    dataset: Any = trainer._remove_unused_columns(trainer.train_dataset, description="training")
    shares = Shares(rows, trainer.args.train_batch_size)
    trainer.get_train_dataloader = lambda: _Loader(dataset, batch_sampler=shares, collate_fn=trainer.data_collator)
    compute_loss = trainer.compute_loss

    def checked(*inputs: Any, **options: Any) -> Any:
        loss = compute_loss(*inputs, **options)
        if not torch.isfinite(loss):
            raise StageError(f"step {trainer.state.global_step + 1}: loss is {loss.item()}; lower {stage}.learning_rate")
        alive()  # before the ranks wait for each other in the backward pass
        return loss

    trainer.compute_loss = checked
    trainer.store_flos = lambda: None  # it would wait for all ranks, but only rank 0 writes checkpoints


def weight_of(count: int) -> float:
    """Return the weight of this rank's mean loss over `count` items, so that the ranks' mean is the mean over all items."""
    return count * size() / sum(of_each_rank(count))


def mean_of(weighted: float) -> float:
    """Return the mean over ranks of a figure that has its weight."""
    return sum(of_each_rank(weighted)) / size()


def through(model: Any, compute: Callable[..., Any], *inputs: Any) -> Any:
    """Return `compute(model, *inputs)`. Where DDP wraps the model, this happens inside DDP's forward pass.

    DDP adds the gradients of the ranks only for what its forward pass returned.
    """
    if not isinstance(model, DistributedDataParallel):
        return compute(model, *inputs)
    module: Any = model.module
    own = module.forward

    def inside(*given: Any) -> Any:
        module.forward = own
        return compute(module, *given)

    module.forward = inside
    try:
        return model(*inputs)
    finally:
        module.forward = own
