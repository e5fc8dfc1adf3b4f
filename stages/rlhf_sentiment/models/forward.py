"""Call a model: position ids from the mask, and a cache for one token at a time.

compatibility.py checks these calls on a user's model before any stage uses it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def positions(attention_mask: Tensor) -> Tensor:
    """Return position ids that start at 0 on each row's first real token: (B, L) -> (B, L)."""
    return (attention_mask.cumsum(dim=1) - 1).clamp(min=0)


def step(model: PreTrainedModel, ids: Tensor, attention_mask: Tensor, places: Tensor, cache: Any) -> Tensor:
    """Feed new tokens to a model with a cache, and return the logits after the last one.

    Args:
        model: a causal language model.
        ids: the new tokens. (B, T)
        attention_mask: of the cached and the new tokens. (B, L + T)
        places: position ids of the new tokens. (B, T)
        cache: a cache of transformers with L tokens. The call adds the new tokens to it.

    Returns:
        logits. (B, V)
    """
    output = model(
        input_ids=ids,
        attention_mask=attention_mask,
        position_ids=places,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1]


def logits_and_states(model: PreTrainedModel, sequences: Tensor, attention_mask: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits (B, T, V) and the trunk's last hidden states (B, T, D) at some positions of each row.

    Args:
        model: a causal language model. D is its `width`.
        sequences: token ids. (B, L)
        attention_mask: 1 on real tokens. (B, L)
        kept: the index of the positions. Only these are projected to the vocabulary. (T,)
    """
    output = model(
        input_ids=sequences,
        attention_mask=attention_mask,
        position_ids=positions(attention_mask),
        use_cache=False,
        logits_to_keep=kept,
        output_hidden_states=True,
    )
    return output.logits, output.hidden_states[-1][:, kept]


def states(trunk: nn.Module, sequences: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the last hidden states of a transformer without a head: (B, L), (B, L) -> (B, L, D)."""
    return trunk(
        input_ids=sequences, attention_mask=attention_mask, position_ids=positions(attention_mask), use_cache=False
    ).last_hidden_state


def reward_scores(model: PreTrainedModel, sequences: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the reward model's score of each sequence, read at its last real token.

    Args:
        model: a sequence classifier with one output.
        sequences: token ids, padded on either side or both. (B, L)
        attention_mask: 1 on real tokens. (B, L)

    Returns:
        scores. (B,)
    """
    hidden = states(model.base_model, sequences, attention_mask)  # (B, L, D)
    places = torch.arange(sequences.shape[1], device=sequences.device)
    last = (places * attention_mask).argmax(dim=1)  # (B,)
    with torch.autocast(hidden.device.type, enabled=False):
        return model.score(hidden[torch.arange(len(sequences)), last].float()).squeeze(-1)


@torch.no_grad()
def width(model: PreTrainedModel) -> int:
    """Return D, the width of the trunk's last hidden states. In some models it differs from the configured size."""
    one = torch.ones(1, 1, dtype=torch.long, device=model.device)
    return states(model.base_model, one, one).shape[-1]


def room_of(model: PreTrainedModel) -> float:
    """Return the number of the model's positions, infinite for some models. Prompt and response must fit into them."""
    return getattr(model.config, "max_position_embeddings", None) or float("inf")
