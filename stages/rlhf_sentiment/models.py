"""Models and tokenizers: which device, how they are loaded and saved, and the reward model's and critic's scores.

Everything is float32, dropout is off in whatever is loaded, and every tokenizer has a pad token that is not its EOS.
"""

import json
import os
import random
import warnings
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers import logging as transformers_logging
from transformers.activations import NewGELUActivation

from .run import StageError, first_line, require, writing

PAD = "<|pad|>"


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
    return _load(AutoTokenizer, folder, revision=revision, padding_side="left")


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of `text`: after a BOS where the tokenizer puts one before every text (Llama), and without EOS."""
    start = [token for token in tokenizer("")["input_ids"] if token == tokenizer.bos_token_id][:1]
    return start + tokenizer(text, add_special_tokens=False)["input_ids"]


def encode_pair(tokenizer: PreTrainedTokenizerBase, prompt: str, response: str) -> tuple[list[int], list[int]]:
    """Token ids of a prompt, as `encode` gives them, and of the response that goes on from it.

    The response is a part of the whole text: alone, a SentencePiece tokenizer would put another space before it. Only
    where the prompt's last token would merge with the response's first is the response encoded apart.
    """
    before, whole = encode(tokenizer, prompt), encode(tokenizer, prompt + response)
    if whole[: len(before)] == before:
        return before, whole[len(before) :]
    return before, tokenizer(response, add_special_tokens=False)["input_ids"]


def encode_example(
    tokenizer: PreTrainedTokenizerBase, prompt: str, response: str, longest: int, cut: bool
) -> tuple[list[int], list[int], bool]:
    """Token ids to train on: of the prompt, of the response with EOS, and whether they come to at most `longest`.

    Where they do not, the response is cut there and has no EOS (a model must not learn to stop where the scissors did), or,
    without `cut` or room for any of it, empty.
    """
    before, after = encode_pair(tokenizer, prompt, response)
    after = [*after, tokenizer.eos_token_id]
    fits = len(before) + len(after) <= longest
    return before, after if fits else after[: max(longest - len(before), 0)] if cut else [], fits


def decode_response(tokenizer: PreTrainedTokenizerBase, prompt: list[int], response: list[int]) -> str:
    """The text that `response` adds to `prompt`, its leading space included, special tokens left out."""
    before, whole = (tokenizer.decode(ids, skip_special_tokens=True) for ids in (prompt, prompt + response))
    return whole.removeprefix(before) if whole.startswith(before) else tokenizer.decode(response, skip_special_tokens=True)


def room_of(model: PreTrainedModel) -> float:
    """Positions that the model has: the tokens that prompt and response may have together; some models have no limit."""
    return getattr(model.config, "max_position_embeddings", None) or float("inf")


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

    Raises:
        StageError: it cannot be loaded, naming the folder or the damaged file.

    Example:
        >>> load_policy("models/ppo").config.model_type
        'gpt2'
    """
    model, info = _load(AutoModelForCausalLM, folder, revision=revision, dtype=torch.float32, output_loading_info=True)
    _refuse_missing(folder, info["missing_keys"])
    return fuse_gelu(model).to(device).eval()


def load_reward_model(folder: str | Path, device: torch.device | str = "cpu", new_head: bool = False) -> PreTrainedModel:
    """A reward model: a sequence classifier with one output.

    Args:
        new_head: `folder` has a policy, whose trunk gets a new, random head.

    Raises:
        StageError: it cannot be loaded, naming the folder or the damaged file.

    Example:
        >>> load_reward_model("models/reward").config.num_labels
        1
    """
    model, info = _load(AutoModelForSequenceClassification, folder, num_labels=1, dtype=torch.float32, output_loading_info=True)
    _refuse_missing(folder, {key for key in info["missing_keys"] if not (new_head and key.startswith("score."))})
    return fuse_gelu(model).to(device).eval()


def load_classifier(
    folder: str, device: torch.device | str, revision: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A text classifier as its authors left it, and its tokenizer, from a local folder or the hub."""
    options = {"revision": revision, "dtype": torch.float32, "output_loading_info": True}
    model, info = _load(AutoModelForSequenceClassification, folder, **options)
    _refuse_missing(folder, info["missing_keys"])
    return model.to(device).eval(), _load(AutoTokenizer, folder, revision=revision)


def fuse_gelu(model: PreTrainedModel) -> PreTrainedModel:
    """GPT-2's tanh GELU, written as eight operations, becomes the same function in one; the configuration stays as it is."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU(approximate="tanh"))
    return model


def _refuse_missing(folder: str | Path, missing: Collection[str]) -> None:
    """transformers would fill what a file lacks with random numbers, in silence."""
    if missing:
        raise StageError(f"{folder} lacks weights, such as {min(missing)}; delete it and run `dvc repro`")


def _load(auto: Any, folder: str | Path, **options: Any) -> Any:
    """`from_pretrained`: weights from safetensors alone, never from a pickle, and no code of a model's authors."""
    if auto is not AutoTokenizer:
        options["use_safetensors"] = True
    ours = Path(folder).parent == Path("models")
    if ours:
        require(Path(folder))  # or transformers would ask the hub for it
    mend = "delete it and run `dvc repro`" if ours else "see base.model and evaluate.judges in params.yaml"
    try:
        return auto.from_pretrained(str(folder), trust_remote_code=False, **options)
    except Exception as error:  # tokenizers raises nothing else
        why = first_line(error)
        if (file := _damaged(Path(folder))) is not None:
            raise StageError(f"{file} cannot be read: {why}; {mend}") from None
        raise StageError(f"{folder} cannot be loaded: {why}; {mend}") from error


def _damaged(folder: Path) -> Path | None:
    """The first file in a local folder that is not what its name says."""
    for file in sorted(folder.glob("*")):
        try:
            if file.suffix == ".json":
                json.loads(file.read_text(encoding="utf-8"))
            elif file.suffix == ".safetensors":
                safe_open(file, "pt").__enter__()
        except (OSError, SafetensorError, ValueError):
            return file
    return None


def save(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: str | Path, critic: "Critic | None" = None
) -> None:
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


def positions(attention_mask: Tensor) -> Tensor:
    """Position ids that start at 0 on each row's first real token, wherever padding puts it. (B, L) -> (B, L)."""
    return (attention_mask.cumsum(dim=1) - 1).clamp(min=0)


def reward_scores(model: PreTrainedModel, sequences: Tensor, attention_mask: Tensor) -> Tensor:
    """The reward model's score of each sequence, read at its last real token.

    Args:
        sequences: token ids, padded on either side or both. (B, L)
        attention_mask: 1 on real tokens. (B, L)

    Returns:
        scores. (B,)
    """
    hidden = model.base_model(
        input_ids=sequences, attention_mask=attention_mask, position_ids=positions(attention_mask), use_cache=False
    ).last_hidden_state  # (B, L, D)
    places = torch.arange(sequences.shape[1], device=sequences.device)
    last = (places * attention_mask).argmax(dim=1)  # (B,)
    with torch.autocast(hidden.device.type, enabled=False):
        return model.score(hidden[torch.arange(len(sequences)), last].float()).squeeze(-1)


class Critic(nn.Module):
    """The value of each state: a linear head on the hidden states of a transformer's trunk, its own or the policy's.

    A trunk of its own starts from the reward model, which already knows how a whole review sounds: its trunk and head are
    the natural first guess of the score that an unfinished one will get (Stiennon et al. 2020, 2009.01325, section 3.4).
    A head on the policy's trunk starts from zero and costs next to nothing (Ziegler et al. 2019, 1909.08593, section 2.1).
    """

    def __init__(self, width: int, trunk: PreTrainedModel | None = None) -> None:
        """A head of zeros. Without `trunk`, the critic reads the policy's states of `width`."""
        super().__init__()
        self.trunk = trunk
        self.head = nn.Linear(width, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @classmethod
    def from_reward_model(cls, model: PreTrainedModel) -> "Critic":
        """A critic that takes over the reward model's weights (pass a copy where the model is still needed)."""
        critic = cls(model.score.weight.shape[1], model.base_model)
        with torch.no_grad():
            critic.head.weight.copy_(model.score.weight)
        return critic.to(model.score.weight.device)

    def rescale(self, mean: float, std: float) -> None:
        """Predict (score - mean) / std wherever the head predicted score; a head of zeros predicts nothing yet, and stays."""
        if not self.head.weight.any():
            return
        with torch.no_grad():
            self.head.weight.div_(std)
            self.head.bias.sub_(mean).div_(std)

    def load(self, path: Path) -> None:
        """Restore what `save` wrote beside a policy."""
        self.load_state_dict(load_file(path))

    def value(self, states: Tensor) -> Tensor:
        """V of each hidden state, in float32 even where products are not. (B, T, D) -> (B, T)"""
        with torch.autocast(states.device.type, enabled=False):
            return self.head(states.float()).squeeze(-1)

    def forward(self, sequences: Tensor, attention_mask: Tensor, response: int) -> Tensor:
        """V of the state before each of the last `response` tokens, from a trunk of its own: V at t has not seen token t.

        Args:
            sequences, attention_mask: (B, P + T)
            response: T.

        Returns:
            values. (B, T)

        Raises:
            ValueError: the trunk is the policy's.
        """
        if self.trunk is None:
            raise ValueError("a critic on the policy's trunk reads the policy's states: call `value`")
        hidden = self.trunk(
            input_ids=sequences, attention_mask=attention_mask, position_ids=positions(attention_mask), use_cache=False
        ).last_hidden_state
        return self.value(hidden[:, -response - 1 : -1])
