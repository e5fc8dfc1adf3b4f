"""Models and tokenizers: which device, and how they are loaded and saved.

Everything is float32, dropout is off in whatever is loaded, and every tokenizer has a pad token that is not its EOS.
"""

import os
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
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
from transformers import logging as transformers_logging
from transformers.activations import NewGELUActivation

from .forward import room_of
from .messages import is_made
from .model_checks import check_policy, refuse_absent, refuse_not_finite, refuse_unplaced
from .model_files import from_pretrained
from .run import StageError, first_line, writing
from .scores import Critic
from .value_head import reward_class


def resolve_device(name: str) -> torch.device:
    """The device that the setting `device` means: `auto` is CUDA where there is one, else MPS, else the CPU.

    Raises:
        StageError: the device is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return torch.device(next(kind for kind, is_there in there.items() if is_there))
    device = torch.device(name)
    if not there[device.type] or (device.index or 0) >= max(torch.cuda.device_count(), 1):
        have = ", ".join(kind for kind, is_there in there.items() if is_there)
        raise StageError(f"device: {name} is not there (this machine has {have}); set `device: auto`")
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)
    return device


def make_deterministic(seed: int) -> None:
    """Seed every generator, and ask torch for the algorithms that give the same bits each time.

    An operation with no deterministic algorithm warns and runs: on some devices there is no other.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # That would also fill every new tensor with NaN before it is written: a tenth of a PPO step's time on a CPU.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def random_states() -> dict[str, Any]:
    """The state of every generator, as tensors and plain values, for a checkpoint."""
    numpy: dict[str, Any] = np.random.get_state(legacy=False)
    numpy["state"]["key"] = numpy["state"]["key"].tolist()
    return {
        "python": random.getstate(),
        "numpy": numpy,
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all(),  # empty where there is none
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Put every generator back to where `random_states` found it."""
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    torch.set_rng_state(states["torch"])
    torch.cuda.set_rng_state_all(states["cuda"])


def quiet() -> None:
    """Leave the terminal to the stage's own lines."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)


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

    What the pipeline did not make itself is checked (model_checks.py). How it was to be sampled elsewhere is not read:
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
        model._weight_conversions = None  # or `save_pretrained` would write the names of a wrapper again (model_files.py)
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
