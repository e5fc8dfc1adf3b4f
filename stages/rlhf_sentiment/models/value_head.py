"""Heads on a transformer's trunk: the reward model's score and the critic's value.

A reward model is a sequence classifier with one output, of transformers' own class. Some causal models have no such class
(Granite, Cohere). For these, `reward_class` makes a class of the same form: the trunk, and a linear head `score`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_layers import GenericForSequenceClassification

from ..engine.errors import StageError
from .forward import before_responses, states

_FIT_STEPS, _FIT_BATCH, _FIT_RATE = 200, 512, 1e-3  # how a shared critic learns before the first step


def reward_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """Return the class of a reward model on the trunk that `config` describes.

    Raises:
        StageError: `config` does not belong to a causal language model.
    """
    if type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise StageError(f"a model of the kind {config.model_type} is not a causal language model, so it gets no value head")
    causal = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    family = next(one for one in causal.__mro__ if PreTrainedModel in one.__bases__)
    body: dict[str, Any] = {
        "__module__": causal.__module__,  # transformers renames weights only for its own modules
        "base_model_prefix": family.base_model_prefix,
    }
    return type(
        causal.__name__.replace("ForCausalLM", "ForSequenceClassification"), (GenericForSequenceClassification, family), body
    )


class Critic(nn.Module):
    """The value of each state, from the hidden states of a trunk.

    A separate critic trains a trunk of its own, which starts as a copy of the reward model's. The score of a whole review is a
    good first estimate for the score of an unfinished one (Stiennon et al. 2020, 2009.01325, section 3.4).

    A shared critic has no trunk. Its head reads states that are computed in any case, from a model that does not change: the
    reward model's, or the reference policy's where the reward comes from no model. It costs almost no time. The states of the
    policy explain the returns less well, and change under the head while it learns (docs/performance.md).

    Attributes:
        trunk: the critic's own, or None.
        adapter: the name of the critic's adapter on a trunk that other models share (adapters.py), or None.
        hidden: a layer of D units where there is no trunk.
        head: from D numbers to one.
    """

    def __init__(self, width: int, trunk: PreTrainedModel | None = None, adapter: str | None = None) -> None:
        """Make a head on hidden states of `width`. Its value is 0 until it learns."""
        super().__init__()
        self.trunk, self.adapter = trunk, adapter
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.hidden = nn.Sequential(nn.Linear(width, width), nn.Tanh()) if trunk is None else nn.Identity()

    @classmethod
    def from_reward_model(cls, model: PreTrainedModel) -> "Critic":
        """Return a critic that shares the reward model's trunk. Pass a copy where the reward model is still needed."""
        critic = cls(model.score.weight.shape[1], model.base_model)
        with torch.no_grad():
            critic.head.weight.copy_(model.score.weight)
        return critic.to(model.score.weight.device)

    def own(self) -> dict[str, Tensor]:
        """Return the weights that are the critic's alone, by name."""
        is_shared = self.adapter is not None
        return {
            name: weight
            for name, weight in self.state_dict(keep_vars=True).items()
            if not is_shared or not name.startswith("trunk.") or f".{self.adapter}." in name
        }

    def rescale(self, mean: float, std: float) -> None:
        """Change the head so that it predicts (score - mean) / std instead of score. A head of zeros stays as it is."""
        if not self.head.weight.any():
            return
        with torch.no_grad():
            self.head.weight.div_(std)
            self.head.bias.sub_(mean).div_(std)

    def fit(self, states: Tensor, returns: Tensor, seed: Sequence[int]) -> None:
        """Learn to predict the returns of states, with AdamW on random parts of them.

        Args:
            states: hidden states. (M, D)
            returns: (M,)
            seed: decides the parts.
        """
        random = np.random.default_rng(seed)
        optimizer = torch.optim.AdamW(self.parameters(), lr=_FIT_RATE, weight_decay=0.0, fused=True)
        for _ in range(_FIT_STEPS):
            part = torch.from_numpy(random.integers(len(returns), size=_FIT_BATCH)).to(returns.device)
            functional.mse_loss(self.value(states[part]), returns[part]).backward()
            optimizer.step()
            optimizer.zero_grad()

    def value(self, states: Tensor) -> Tensor:
        """Return V of each hidden state, always computed in float32: (M, D) -> (M,)."""
        with torch.autocast(states.device.type, enabled=False):
            return self.head(self.hidden(states.float())).squeeze(-1)

    def forward(self, sequences: Tensor, attention_mask: Tensor, response: int, read: Tensor | None = None) -> Tensor:
        """Return V of the state before each of the last `response` tokens. V at position t does not depend on token t.

        Args:
            sequences: token ids. (B, P + T)
            attention_mask: 1 on real tokens. (B, P + T)
            response: T.
            read: the states, for a critic without a trunk. (B, T, D)

        Returns:
            values, 0 on padding. (B, T)

        Raises:
            ValueError: the critic has no trunk of its own, and gets no states.
        """
        real = attention_mask[:, -response:].bool()
        if self.trunk is not None:
            found = states(self.trunk, sequences, attention_mask, before_responses(attention_mask, response))
        elif read is not None:
            found = read[real]
        else:
            raise ValueError("a critic without a trunk needs the states of another model")
        values = self.value(found)
        return values.new_zeros(real.shape).masked_scatter(real, values)
