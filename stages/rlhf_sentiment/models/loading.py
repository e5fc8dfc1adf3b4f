"""Load and save models and tokenizers.

Every model is loaded in float32 with dropout off. After the stage `base`, every tokenizer has a pad token that is not its EOS.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn
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

from ..engine.errors import StageError, first_line
from ..engine.messages import is_made
from ..engine.outputs import writing
from .adapters import FOLDER, POLICY, REWARD, adapter_layers, merged, save_adapter
from .compatibility import check_policy, refuse_absent, refuse_not_finite, refuse_unplaced
from .forward import room_of
from .packing import pack
from .value_head import reward_class
from .weights import from_pretrained


def load_tokenizer(folder: str | Path, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load a tokenizer that pads on the left, from a local folder or the hub.

    Raises:
        StageError: the tokenizer cannot be loaded. The message names the folder or the damaged file.

    Example:
        >>> load_tokenizer("models/sft").padding_side
        'left'
    """
    return from_pretrained(AutoTokenizer, folder, revision=revision, padding_side="left")


def refuse_longer(model: PreTrainedModel, tokens: int, setting: str) -> None:
    """Refuse sequences that are longer than the model's positions.

    Raises:
        StageError: `tokens` is more than the positions. The message names the setting to lower.
    """
    room = room_of(model)
    if tokens > room:
        raise StageError(f"{setting} is {tokens}, and the model has {room} positions; lower it to at most {room}")


def load_policy(folder: str | Path, device: torch.device | str = "cpu", revision: str | None = None) -> PreTrainedModel:
    """Load a causal language model in float32, in evaluation mode.

    A model that the pipeline did not make is checked (compatibility.py). Its own settings for sampling are not read, because
    `generation` in params.yaml replaces them.

    Raises:
        StageError: the model cannot be loaded (the message names the folder or the damaged file), or does not work here.

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
            model.config.tie_word_embeddings = False  # otherwise a resize overwrites the head with the embedding
        check_policy(folder, model)
        model.generation_config = GenerationConfig.from_model_config(model.config)
    return made_fast(model).to(device).eval()


def load_reward_model(folder: str | Path, device: torch.device | str = "cpu", new_head: bool = False) -> PreTrainedModel:
    """Load a reward model: a sequence classifier with one output (value_head.py).

    Args:
        folder: of a reward model, or of a policy with `new_head`.
        device: where the model goes.
        new_head: give the trunk of a policy a new, random head.

    Raises:
        StageError: the model cannot be loaded. The message names the folder or the damaged file.

    Example:
        >>> load_reward_model("models/reward").config.num_labels
        1
    """
    model, info = _load(reward_class(from_pretrained(AutoConfig, folder)), folder, num_labels=1)
    refuse_absent(folder, {key for key in info["missing_keys"] if not (new_head and key.startswith("score."))}, info)
    return made_fast(model).to(device).eval()


def load_classifier(
    folder: str, device: torch.device | str, revision: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a text classifier, unchanged, and its tokenizer, from a local folder or the hub."""
    model, info = _load(AutoModelForSequenceClassification, folder, revision=revision)
    refuse_absent(folder, info["missing_keys"], info)
    refuse_not_finite(folder, model)
    return model.to(device).eval(), from_pretrained(AutoTokenizer, folder, revision=revision)


def _load(auto: Any, folder: str | Path, **options: Any) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Return a model in float32, and transformers' info on missing, unexpected and mismatched weights."""
    options |= {"dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True}
    model, info = from_pretrained(auto, folder, **options)
    if not is_made(folder):
        model._weight_conversions = None  # otherwise `save_pretrained` restores the names of a wrapper (weights.py)
    return model, info


def made_fast(model: PreTrainedModel) -> PreTrainedModel:
    """Let a model compute the same function faster. Its configuration and weights stay as they are.

    GPT-2's tanh GELU becomes one operation instead of eight, and padding is not computed (packing.py).
    """
    fuse(model)
    pack(model)
    return model


def fuse(model: nn.Module) -> None:
    """Let a GPT-2 compute its activation in one operation."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: str | Path,
    critic: dict[str, Tensor] | None = None,
    weights: dict[str, Tensor] | None = None,
) -> None:
    """Write a model that plain `from_pretrained` loads: weights, configuration and tokenizer. A critic gets its own file.

    An adapter is added to the weights, and also written alone, to a folder of its own.

    Args:
        model: the model.
        tokenizer: of the model.
        folder: where to write.
        critic: the weights of a critic.
        weights: those of the model. None: those that it holds.

    Raises:
        StageError: the folder cannot be written.
    """
    try:
        with writing(folder) as aside:
            if adapter_layers(model):
                name = REWARD if hasattr(model, "score") else POLICY
                save_adapter(model, name, aside / FOLDER)
                weights = merged(model, name)
            model.save_pretrained(aside, state_dict=weights)
            tokenizer.save_pretrained(aside)
            if critic is not None:
                save_file({name: tensor.contiguous() for name, tensor in critic.items()}, aside / "critic.safetensors")
    except SafetensorError as error:
        raise StageError(f"{folder} cannot be written: {first_line(error)}") from None
