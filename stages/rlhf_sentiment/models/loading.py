"""Models and tokenizers: which device, and how they are loaded and saved.

Everything is float32, dropout is off in whatever is loaded, and every tokenizer has a pad token that is not its EOS.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.activations import NewGELUActivation

from ..engine.artifacts import writing
from ..engine.errors import StageError, first_line
from ..engine.messages import is_made
from .compatibility import check_policy, refuse_absent, refuse_not_finite, refuse_unplaced
from .forward import room_of
from .value_head import Critic, reward_class
from .weights import from_pretrained


def load_tokenizer(folder: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """A tokenizer that pads on the left, from a local folder or the hub.

    Raises:
        StageError: it cannot be loaded, naming the folder or the damaged file.

    Example:
        >>> load_tokenizer("models/sft").padding_side
        'left'
    """
    return from_pretrained(AutoTokenizer, folder, revision=revision, padding_side="left")


def refuse_longer(model: PreTrainedModel, tokens: int, setting: str) -> None:
    """Refuse sequences that the model has no positions for.

    Raises:
        StageError: naming the setting to lower.
    """
    room = room_of(model)
    if tokens > room:
        raise StageError(f"{setting} is {tokens}, and the model has {room} positions; lower it to at most {room}")


def load_policy(folder: str | Path, device: torch.device | str = "cpu", revision: str | None = None) -> PreTrainedModel:
    """A causal language model in float32, in evaluation mode: its distribution is the one that rollouts see.

    What the pipeline did not make itself is checked (compatibility.py). How it was to be sampled elsewhere is not read:
    `generation` in params.yaml says how it is here.

    Raises:
        StageError: it cannot be loaded, naming the folder or the damaged file; it cannot be worked with, and why.

    Example:
        >>> load_policy("models/ppo").config.model_type
        'gpt2'
    """
    model, info = _load(AutoModelForCausalLM, folder, revision=revision)
    refuse_absent(folder, info["missing_keys"], info)
    if not is_made(folder):
        refuse_unplaced(folder, info)
        refuse_not_finite(folder, model)
        head = model.get_output_embeddings()
        if head is not None and head.weight is not model.get_input_embeddings().weight:
            model.config.tie_word_embeddings = False  # or a new size would put the embedding in the place of the head
        check_policy(folder, model)
        model.generation_config = GenerationConfig.from_model_config(model.config)
    return fuse_gelu(model).to(device).eval()


def load_reward_model(folder: str | Path, device: torch.device | str = "cpu", new_head: bool = False) -> PreTrainedModel:
    """A reward model: a sequence classifier with one output (value_head.py).

    Args:
        new_head: `folder` has a policy, whose trunk gets a new, random head.

    Raises:
        StageError: it cannot be loaded, naming the folder or the damaged file.

    Example:
        >>> load_reward_model("models/reward").config.num_labels
        1
    """
    model, info = _load(reward_class(from_pretrained(AutoConfig, folder)), folder, num_labels=1)
    refuse_absent(folder, {key for key in info["missing_keys"] if not (new_head and key.startswith("score."))}, info)
    return fuse_gelu(model).to(device).eval()


def load_classifier(
    folder: str, device: torch.device | str, revision: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A text classifier as its authors left it, and its tokenizer, from a local folder or the hub."""
    model, info = _load(AutoModelForSequenceClassification, folder, revision=revision)
    refuse_absent(folder, info["missing_keys"], info)
    refuse_not_finite(folder, model)
    return model.to(device).eval(), from_pretrained(AutoTokenizer, folder, revision=revision)


def _load(auto: Any, folder: str | Path, **options: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """A model in float32, and what transformers says of the weights that were not where they should be."""
    options |= {"dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True}
    model, info = from_pretrained(auto, folder, **options)
    if not is_made(folder):
        model._weight_conversions = None  # or `save_pretrained` would write the names of a wrapper again (weights.py)
    return model, info


def fuse_gelu(model: PreTrainedModel) -> PreTrainedModel:
    """GPT-2's tanh GELU, written as eight operations, becomes the same function in one; the configuration stays as it is."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
    return model


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path, critic: Critic | None = None) -> None:
    """Write a model that plain `from_pretrained` loads: weights, configuration, tokenizer; a critic in a file beside.

    Raises:
        StageError: the disk does not take it.
    """
    try:
        with writing(folder) as aside:
            model.save_pretrained(aside)
            tokenizer.save_pretrained(aside)
            if critic is not None:
                weights = {name: tensor.contiguous() for name, tensor in critic.state_dict().items()}
                save_file(weights, aside / "critic.safetensors")
    except SafetensorError as error:
        raise StageError(f"{folder} cannot be written: {first_line(error)}") from None
