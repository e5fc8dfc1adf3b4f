"""How this project calls a model: positions from the mask, and a cache for one token at a time.

compatibility.py holds a model to these calls before any work is done with it.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def positions(attention_mask: Tensor) -> Tensor:
    """Position ids that start at 0 on each row's first real token, wherever padding puts it. (B, L) -> (B, L)."""
    return (attention_mask.cumsum(dim=1) - 1).clamp(min=0)


def step(model: PreTrainedModel, ids: Tensor, attention_mask: Tensor, places: Tensor, cache: Any) -> Tensor:
    """Logits after the last of some new tokens; the cache holds those before them, and takes these.

    Args:
        ids: the new tokens. (B, T)
        attention_mask: of all tokens so far. (B, L + T)
        places: position ids of the new tokens. (B, T)
        cache: of transformers, with L tokens.

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
    """Logits (B, T, V) and the trunk's last hidden states (B, T, D) at the places `kept`, an index of (T,).

    The projection to the vocabulary is of those places alone. D is `width` of the model.
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
    """The last hidden states of a transformer without its head. (B, L), (B, L) -> (B, L, D)"""
    return trunk(
        input_ids=sequences, attention_mask=attention_mask, position_ids=positions(attention_mask), use_cache=False
    ).last_hidden_state


def reward_scores(model: PreTrainedModel, sequences: Tensor, attention_mask: Tensor) -> Tensor:
    """The reward model's score of each sequence, read at its last real token.

    Args:
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
    """D, the width of the trunk's last hidden states. Some trunks narrow them: it is not always the configuration's size."""
    one = torch.ones(1, 1, dtype=torch.long, device=model.device)
    return states(model.base_model, one, one).shape[-1]


def room_of(model: PreTrainedModel) -> float:
    """Positions that the model has: the tokens that prompt and response may have together; some models have no limit."""
    return getattr(model.config, "max_position_embeddings", None) or float("inf")
