"""A reward model is a sequence classifier with one output: transformers' own class for it, or one that is made here.

Some causal models have no such class (Granite, Cohere). Theirs has the same form: the trunk, and a linear head `score`.
"""

from typing import Any

from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    PretrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_layers import GenericForSequenceClassification

from .run import StageError


def reward_class(config: PretrainedConfig) -> type[PreTrainedModel]:
    """The class of a reward model on the trunk that `config` describes.

    Raises:
        StageError: `config` is of no causal language model.
    """
    if type(config) in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        return MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise StageError(f"a model of the kind {config.model_type} is no causal language model, and has no value head here")
    causal = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    family = next(one for one in causal.__mro__ if PreTrainedModel in one.__bases__)
    body: dict[str, Any] = {
        "__module__": causal.__module__,  # transformers renames weights on loading for its own modules alone
        "base_model_prefix": family.base_model_prefix,
    }
    return type(
        causal.__name__.replace("ForCausalLM", "ForSequenceClassification"), (GenericForSequenceClassification, family), body
    )
