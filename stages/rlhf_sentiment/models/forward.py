"""Call a model: on all tokens of a batch at once, or one token at a time with a cache.

A batch is padded, and a model computes only its real tokens where it can (packing.py). compatibility.py checks these calls on a
user's model before any stage uses it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from ..engine.ranks import working
from .fsdp import any_computes
from .packing import Packed, packs, positions


def step(model: PreTrainedModel, ids: Tensor, attention_mask: Tensor | None, places: Tensor, cache: Any) -> Tensor:
    """Feed new tokens to a model with a cache, and return the logits after the last one.

    Args:
        model: a causal language model.
        ids: the new tokens. (B, T)
        attention_mask: of the cached and the new tokens. None if all of them are real. (B, L + T)
        places: position ids of the new tokens. (B, T)
        cache: a cache of transformers with L tokens. The call adds the new tokens to it.

    Returns:
        logits. (B, V)
    """
    working()
    any_computes(model, True)
    output = model(
        input_ids=ids,
        attention_mask=attention_mask,
        position_ids=places,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1]


@torch.no_grad()
def step_along(model: PreTrainedModel) -> None:
    """Compute steps that nobody needs, while other ranks of a sharded model (fsdp.py) still take steps."""
    one = torch.zeros(1, 1, dtype=torch.long, device=model.device)
    while any_computes(model, False):
        model(input_ids=one, position_ids=one, use_cache=False, logits_to_keep=1)


def before_responses(attention_mask: Tensor, length: int) -> Tensor:
    """Return a mask of the positions before each real response token: (B, L) -> (B, L).

    Args:
        attention_mask: 1 on real tokens. (B, L)
        length: the number of columns of responses, T. They are the last ones.
    """
    kept = torch.zeros_like(attention_mask, dtype=torch.bool)
    kept[:, -length - 1 : -1] = attention_mask[:, -length:].bool()
    return kept


def logits(model: PreTrainedModel, sequences: Tensor, attention_mask: Tensor, kept: Tensor) -> Tensor:
    """Return a model's logits at M positions, row by row, (M, V).

    Args:
        model: a causal language model.
        sequences: token ids. (B, L)
        attention_mask: 1 on real tokens. (B, L)
        kept: True at the M positions, which are real tokens. Only these are projected to the vocabulary. (B, L)
    """
    if packs(model):
        packed = Packed.of(sequences, attention_mask)
        # The gradient of `flatten` is a view. That of `[0]` would be a copy.
        return model(**packed.inputs(), logits_to_keep=packed.at(kept)).logits.flatten(0, 1)
    columns = kept.any(dim=0).nonzero().squeeze(1)
    return model(**_padded(sequences, attention_mask), logits_to_keep=columns).logits[kept[:, columns]]


def states(trunk: nn.Module, sequences: Tensor, attention_mask: Tensor, kept: Tensor) -> Tensor:
    """Return the last hidden states of a transformer without a head at M positions, row by row, (M, D).

    The arguments are those of `logits`. D is the model's `width`.
    """
    if packs(trunk):
        packed = Packed.of(sequences, attention_mask)
        return trunk(**packed.inputs()).last_hidden_state[0, packed.at(kept)]
    return trunk(**_padded(sequences, attention_mask)).last_hidden_state[kept]


def _padded(sequences: Tensor, attention_mask: Tensor) -> dict[str, Any]:
    """Return the arguments of a model for a padded batch."""
    places = positions(attention_mask)
    return {"input_ids": sequences, "attention_mask": attention_mask, "position_ids": places, "use_cache": False}


def reward_scores(model: PreTrainedModel, sequences: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the reward model's score of each sequence, read at its last real token.

    Args:
        model: a sequence classifier with one output.
        sequences: token ids, padded on either side or both. (B, L)
        attention_mask: 1 on real tokens. (B, L)

    Returns:
        scores. (B,)
    """
    return _scores(model, states(model.base_model, sequences, attention_mask, _last(attention_mask)))


def reward_scores_and_states(
    model: PreTrainedModel, sequences: Tensor, attention_mask: Tensor, length: int
) -> tuple[Tensor, Tensor]:
    """Return the scores of `reward_scores`, and the trunk's hidden state before each of the M response tokens, in one pass.

    Args:
        model, sequences, attention_mask: as in `reward_scores`.
        length: the number of columns of responses. They are the last ones.

    Returns:
        scores and states, the latter row by row. (B,), (M, D)
    """
    last = _last(attention_mask)
    kept = before_responses(attention_mask, length) | last
    hidden, is_last = states(model.base_model, sequences, attention_mask, kept), last[kept]
    return _scores(model, hidden[is_last]), hidden[~is_last]


def _last(attention_mask: Tensor) -> Tensor:
    """Return a mask of each row's last real token: (B, L) -> (B, L)."""
    places = torch.arange(attention_mask.shape[1], device=attention_mask.device)
    return places == (places * attention_mask).argmax(dim=1)[:, None]


def _scores(model: PreTrainedModel, hidden: Tensor) -> Tensor:
    with torch.autocast(hidden.device.type, enabled=False):
        return model.score(hidden.float()).squeeze(-1)


@torch.no_grad()
def width(model: PreTrainedModel) -> int:
    """Return D, the width of the trunk's last hidden states. In some models it differs from the configured size."""
    one = torch.ones(1, 1, dtype=torch.long, device=model.device)
    return states(model.base_model, one, one, one.bool()).shape[-1]


def room_of(model: PreTrainedModel) -> float:
    """Return the number of the model's positions, infinite for some models. Prompt and response must fit into them."""
    return getattr(model.config, "max_position_embeddings", None) or float("inf")
