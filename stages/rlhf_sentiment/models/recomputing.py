"""Gradient checkpointing (Chen et al. 2016, 1604.06174): keep the input of each layer, and compute the rest again."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from ..engine.errors import StageError

Contexts = Callable[[], tuple[AbstractContextManager[Any], AbstractContextManager[Any]]]


def recompute(trunk: PreTrainedModel, contexts: Contexts | None = None) -> None:
    """Let the layers of a trunk compute again in the backward pass. The gradients stay the same.

    transformers does this for layers in training mode. A policy is never in training mode, which would switch dropout on. So a
    layer itself takes this mode where gradients are recorded, and the modules inside it do not.

    Args:
        trunk: a transformer without a head.
        contexts: gives two contexts, for the first computation of a layer and for the second.

    Raises:
        StageError: transformers cannot recompute the layers of this architecture.
    """
    layers = [module for module in trunk.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers or not trunk.supports_gradient_checkpointing:
        raise StageError(
            f"ppo.gradient_checkpointing: transformers cannot recompute the layers of a {trunk.config.model_type}; set false"
        )
    options: dict[str, Any] = {"use_reentrant": False, "preserve_rng_state": False}  # no layer draws random numbers
    trunk.activation_checkpointing_enable(options if contexts is None else options | {"context_fn": contexts})
    trunk.disable_input_require_grads()  # only the other kind of checkpointing needs gradients of the inputs
    for layer in layers:
        layer.register_forward_pre_hook(_train_with_gradients)


def _train_with_gradients(layer: nn.Module, _: Any) -> None:
    layer.training = torch.is_grad_enabled()
