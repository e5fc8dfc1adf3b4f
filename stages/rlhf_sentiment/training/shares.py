"""Let transformers' Trainer train in several ranks as it does in one: the same batches, cut into shares, and the same loss."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import BatchSampler, DataLoader
from transformers import Trainer

from ..engine.errors import StageError
from ..engine.ranks import alive, rank, shards, size
from ..models.adapters import adapter_layers
from ..models.exchange import of_each_rank
from ..models.forward import logits
from ..models.fsdp import clip_gradients, gathered, is_sharded, shard


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


@contextmanager
def sharded(trainer: Trainer, stage: str) -> Iterator[None]:
    """Divide the weights of the model among the ranks while the block runs, where that is asked. The model gets the result.

    Raises:
        StageError: the model has an adapter.
    """
    if not shards():
        yield
        return
    if adapter_layers(trainer.model):
        raise StageError(
            f"FSDP: {stage}.lora is not supported, because adapters need little memory; use DDP (docs/scaling/ddp.yaml)"
        )
    whole: Any = trainer.model
    device = whole.device
    part = copy.deepcopy(whole.to("cpu"))  # `fully_shard` cannot be undone
    part.__dict__.pop("forward", None)  # trl's, which calls `whole`
    shard(part, device)
    trainer.model = trainer.model_wrapped = part
    accelerator: Any = trainer.accelerator
    accelerator.prepare_model = lambda model, **_: model  # otherwise it becomes DDP
    accelerator.clip_grad_norm_ = lambda weights, most, *_: torch.tensor(clip_gradients(list(weights), most))
    yield
    whole.load_state_dict(gathered(part.state_dict(keep_vars=True)))
    whole.to(device)


def weight_of(count: int) -> float:
    """Return the weight of this rank's mean loss over `count` items, so that the ranks' mean is the mean over all items."""
    return count * size() / sum(of_each_rank(count))


def mean_of(weighted: float) -> float:
    """Return the mean over ranks of a figure that has its weight."""
    return sum(of_each_rank(weighted)) / size()


def through(model: Any, compute: Callable[..., Any], *inputs: Any) -> Any:
    """Return `compute(model, *inputs)`, inside the forward pass of DDP or of a sharded model.

    DDP adds the gradients of the ranks only for what its forward pass returned. A sharded model is whole only in this pass.
    """
    is_divided, is_ddp = is_sharded(model), isinstance(model, DistributedDataParallel)
    if not (is_ddp or (is_divided and compute is not logits)):  # `logits` calls the model as a whole
        return compute(model, *inputs)
    module: Any = model.module if is_ddp else model
    own = module.forward

    def inside(*given: Any) -> Any:
        module.forward = own
        found = compute(module, *given)
        return found.clone() if is_divided else found  # a view would lose the hook that makes its layers whole again

    module.forward = inside
    try:
        return model(*inputs)
    finally:
        module.forward = own
