"""Linear heads on a transformer's trunk: the reward model's score and the critic's value.

A reward model is a sequence classifier with one output, of transformers' own class. Some causal models have no such class
(Granite, Cohere). For these, `reward_class` makes a class of the same form: the trunk, and a linear head `score`.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_layers import GenericForSequenceClassification

from ..engine.errors import StageError
from .forward import before_responses, states


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
    """The value of each state: a linear head on the hidden states of a trunk, its own or the policy's.

    A critic with its own trunk starts from the reward model's trunk and head. The score of a whole review is a good first
    estimate for the score of an unfinished one (Stiennon et al. 2020, 2009.01325, section 3.4). A head on the
    policy's trunk starts from zero and costs almost no time (Ziegler et al. 2019, 1909.08593, section 2.1).

    Attributes:
        trunk: the critic's own. None where the critic reads the policy's hidden states.
        head: from D numbers to one.
    """

    def __init__(self, width: int, trunk: PreTrainedModel | None = None) -> None:
        """Make a head of zeros on hidden states of `width`. Without `trunk`, these are the policy's."""
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @classmethod
    def from_reward_model(cls, model: PreTrainedModel) -> "Critic":
        """Return a critic that shares the reward model's trunk. Pass a copy where the reward model is still needed."""
        critic = cls(model.score.weight.shape[1], model.base_model)
        with torch.no_grad():
            critic.head.weight.copy_(model.score.weight)
        return critic.to(model.score.weight.device)

    def rescale(self, mean: float, std: float) -> None:
        """Change the head so that it predicts (score - mean) / std instead of score. A head of zeros stays as it is."""
        if not self.head.weight.any():
            return
        with torch.no_grad():
            self.head.weight.div_(std)
            self.head.bias.sub_(mean).div_(std)

    def value(self, hidden: Tensor) -> Tensor:
        """Return V of each hidden state, always computed in float32: (M, D) -> (M,)."""
        with torch.autocast(hidden.device.type, enabled=False):
            return self.head(hidden.float()).squeeze(-1)

    def forward(self, sequences: Tensor, attention_mask: Tensor, response: int) -> Tensor:
        """Return V of the state before each of the last `response` tokens, from the critic's own trunk.

        V at position t does not depend on token t.

        Args:
            sequences: token ids. (B, P + T)
            attention_mask: 1 on real tokens. (B, P + T)
            response: T.

        Returns:
            values, 0 on padding. (B, T)

        Raises:
            ValueError: the critic has no trunk of its own.
        """
        if self.trunk is None:
            raise ValueError("a critic on the policy's trunk reads the policy's states: call `value`")
        real = attention_mask[:, -response:].bool()
        values = self.value(states(self.trunk, sequences, attention_mask, before_responses(attention_mask, response)))
        return values.new_zeros(real.shape).masked_scatter(real, values)
