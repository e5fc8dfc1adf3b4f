"""Fully sharded models (torch's `fully_shard`, FSDP2). Each rank holds a part of every weight, gradient and optimizer state.

A layer gets its whole weights from all ranks while it computes. So all ranks of a sharded model compute the same number of
passes, and those that have nothing to compute join in.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import get_total_norm

from ..engine.ranks import alive, keeps_layers, size


def shard(model: nn.Module, device: torch.device) -> None:
    """Divide a model's weights among the ranks, layer by layer, and move each part to the device.

    Args:
        model: a model of transformers, or a module that holds one. It is the unit that is called from outside.
        device: of this rank.
    """
    mesh = init_device_mesh(device.type, (size(),))
    layers = {name for module in model.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    for module in model.modules():
        if type(module).__name__ in layers:
            fully_shard(module, mesh=mesh, reshard_after_forward=not keeps_layers())
    fully_shard(model, mesh=mesh, reshard_after_forward=not keeps_layers())


def is_sharded(model: nn.Module) -> bool:
    """Return whether `shard` divided this model."""
    return isinstance(model, FSDPModule)


def any_computes(model: nn.Module, computes: bool) -> bool:
    """Return whether any rank computes one more pass. All ranks of a sharded model ask before each pass.

    Args:
        model: one that is not sharded needs no other rank.
        computes: whether this rank computes a pass of its own.
    """
    if not is_sharded(model):
        return computes
    alive()
    flag = torch.tensor([computes], dtype=torch.int, device=next(model.parameters()).device)
    distributed.all_reduce(flag, distributed.ReduceOp.MAX)
    return bool(flag)


def gathered(tree: Any, found: dict[int, Tensor] | None = None) -> Any:
    """Return a tree of dictionaries and lists with whole tensors on the CPU in place of sharded ones. All ranks call this.

    Args:
        tree: such as the weights of a model. A tensor that stands there twice is gathered once, as tied weights.
        found: the tensors so far, by the identity of the sharded one.
    """
    found = {} if found is None else found
    if isinstance(tree, dict):
        return {key: gathered(each, found) for key, each in tree.items()}
    if isinstance(tree, list):
        return [gathered(each, found) for each in tree]
    if isinstance(tree, DTensor):
        if id(tree) not in found:
            part: Any = tree.detach()
            found[id(tree)] = part.full_tensor().cpu()
        return found[id(tree)]
    return tree


def scattered(states: dict[int, dict[str, Tensor]], parameters: Sequence[nn.Parameter]) -> dict[int, dict[str, Tensor]]:
    """Return an optimizer's whole states, one for each parameter, divided as the parameters are."""
    return {
        number: {name: _like(whole, parameters[number]) for name, whole in state.items()} for number, state in states.items()
    }


def _like(whole: Tensor, parameter: Any) -> Tensor:
    if not isinstance(parameter, DTensor) or whole.shape != parameter.shape:  # a number of steps stays as it is
        return whole
    return distribute_tensor(whole.to(parameter.device), parameter.device_mesh, parameter.placements)


def clip_gradients(parameters: Sequence[nn.Parameter], most: float) -> float:
    """Scale gradients so that their norm is at most `most`, and return the norm before. Some of them are sharded.

    Those that are not are averaged over the ranks first. `fully_shard` has averaged the others.
    """
    grads = [parameter.grad for parameter in parameters if parameter.grad is not None]
    divided, own = ([grad for grad in grads if isinstance(grad, DTensor) == is_divided] for is_divided in (True, False))
    for grad in own:
        distributed.all_reduce(grad)
        grad.div_(size())
    norms = [gathered(get_total_norm(part)) for part in (divided, own) if part]
    total = float(torch.stack([norm.cpu() for norm in norms]).norm())
    for grad in grads:
        grad.mul_(min(1.0, most / (total + 1e-6)))  # as torch.nn.utils.clip_grad_norm_
    return total
