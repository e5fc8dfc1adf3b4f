"""Check that a user's language model works with this project, once, where it is loaded.

Sampling uses a key-value cache, one token at a time, and pads rows on the left. Some architectures have no such cache, or let
the padding change their results, without an error. PPO would then learn from wrong numbers.
"""

from collections.abc import Collection
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from ..engine.errors import StageError, first_line
from ..engine.messages import mend_of
from .forward import logits, room_of, step
from .packing import positions
from .value_head import reward_class
from .weights import such_as

_TOLERANCE = 1e-3  # relative to the logits' standard deviation; float32 rounds to about 1e-6 of it


def refuse_absent(folder: str | Path, missing: Collection[str], info: dict[str, Any]) -> None:
    """Refuse a model that lacks weights. transformers would silently fill them with random numbers.

    Args:
        folder: of the model, for the message.
        missing: the names of missing weights that the model needs.
        info: the loading info of transformers.

    Raises:
        StageError: a weight is missing or has another shape. The message names one.
    """
    if missing:
        others = f", and has others{such_as(info['unexpected_keys'])}" if info["unexpected_keys"] else ""
        raise StageError(f"{folder} lacks weights, such as {min(missing)}{others}; {mend_of(folder)}")
    for name, has, asked in sorted(info["mismatched_keys"]):
        shapes = f"the shape {list(has)}, but its config.json asks for {list(asked)}"
        raise StageError(f"{folder}: the weight {name} has {shapes}; {mend_of(folder)}")


def refuse_unplaced(folder: str | Path, info: dict[str, Any]) -> None:
    """Refuse weights for which the configuration has no place. transformers would silently leave them out.

    Raises:
        StageError: there is such a weight. The message names one.
    """
    if info["unexpected_keys"]:
        weights = f"weights that its config.json does not describe{such_as(info['unexpected_keys'])}"
        raise StageError(f"{folder} has {weights}; {mend_of(folder)}")


def refuse_not_finite(folder: str | Path, model: nn.Module) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        StageError: a tensor has such numbers. The message names the tensor.
    """
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise StageError(f"{folder}: the weight {name} has NaN or infinite numbers; {mend_of(folder)}")


def check_policy(folder: str | Path, model: PreTrainedModel) -> None:
    """Refuse a language model from which this project would get wrong samples, scores or gradients.

    Raises:
        StageError: a step with the cache gives other logits than a forward pass without it; padding on the left changes a
            row; the trunk takes no value head. The message has the reason.
    """
    kind = model.config.model_type
    try:
        wrong = _wrong(model)
    except Exception as error:  # an architecture that cannot be called so raises any error
        wrong = f"it cannot be called with a key-value cache and position ids: {first_line(error)}"
    if wrong is None:
        wrong = _no_value_head(model)
    if wrong is not None:
        raise StageError(f"{folder}, a model of the kind {kind}, does not work here: {wrong}; name another model")


@torch.no_grad()
def _wrong(model: PreTrainedModel) -> str | None:
    """Return what changes the logits of a row and should not. None where nothing does."""
    config = model.config.get_text_config()
    length = int(min(12, room_of(model) - 3))
    special = set()
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        ids = getattr(config, name, None)
        special |= set(ids if isinstance(ids, list) else [ids])  # Llama 3.1 and GLM-4 have several that end a text
    ordinary = [one for one in range(min(config.vocab_size, 1000)) if one not in special]
    tokens = [ordinary[7 * place % len(ordinary)] for place in range(length)]
    row = torch.tensor([tokens], device=model.device)  # (1, L)
    both = torch.tensor([tokens[:3] + tokens, tokens[:1] * 3 + tokens], device=model.device)  # (2, 3 + L), the second padded
    mask, both_mask = torch.ones_like(row), torch.ones_like(both)
    both_mask[1, :3] = 0
    kept = torch.zeros_like(both_mask, dtype=torch.bool)
    kept[1, 3:] = True

    plain = logits(model, row, mask, mask.bool())  # (L, V)
    padded = logits(model, both, both_mask, kept)
    near, half = _TOLERANCE * float(plain.std()), length // 2
    if not torch.isfinite(plain).all():
        return "its logits are not finite"
    if not (_stepwise(model, row, mask, half) - plain[-half:]).abs().max() <= near:
        return "its logits with a key-value cache differ from those without"
    stepwise = _stepwise(model, both, both_mask, half)
    if not max((padded - plain).abs().max(), (stepwise - plain[-half:]).abs().max()) <= near:
        return "its logits change if a row is padded on the left"
    return None


def _stepwise(model: PreTrainedModel, ids: Tensor, mask: Tensor, steps: int) -> Tensor:
    """Return the last row's logits after each of its last tokens, fed one at a time as in a rollout, (steps, V)."""
    cache, places, start, found = DynamicCache(config=model.config), positions(mask), 0, []
    for end in range(ids.shape[1] - steps + 1, ids.shape[1] + 1):
        found.append(step(model, ids[:, start:end], mask[:, :end], places[:, start:end], cache)[-1])
        start = end
    return torch.stack(found)


def _no_value_head(model: PreTrainedModel) -> str | None:
    """Return why no reward model can be made from this model. None where one can."""
    with torch.device("meta"):
        reward: Any = reward_class(model.config)(deepcopy(model.config))
    if not isinstance(getattr(reward, "score", None), nn.Linear):
        return f"its class for scores, {type(reward).__name__}, has no linear head `score`"
    if absent := reward.base_model.state_dict().keys() - model.base_model.state_dict().keys():
        return f"a reward model of this kind needs weights that it lacks, such as {min(absent)}"
    return None
