"""The single steps of RLHF from Python: train a reward model on your own preferences, and run PPO on any reward.

These steps call the same functions as the stages, in the current folder. Only `save` writes files, and never among DVC's outs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.pairs import pairs_of_dataset
from ..data.prompts import at_least_one, texts
from ..engine.errors import StageError
from ..engine.messages import shown
from ..engine.records import read_rows
from ..models.devices import make_deterministic, quiet, resolve_device
from ..models.loading import load_reward_model, load_tokenizer, save
from ..models.tokens import encode_example
from ..ppo.loop import actors_of, make_accelerator, prompts_of, train_policy
from ..reward_model import score, train_reward
from ..rewards import reward_of_model, reward_of_texts
from ..sampling.answers import answer
from ..settings.counts import number_of
from ..training.checkpoints import Checkpoints
from .config import RLHFConfig
from .repository import outs, require_repository, warn_of_other_settings

UP_TO_SFT = ("prepare", "base", "sft")  # the stages that models/sft comes from
RewardFunction = Callable[[list[str], list[str]], Sequence[float]]


class RewardModel:
    """A reward model: the pipeline's, or one that is trained here from models/sft on your own pairs.

    Example:
        >>> reward_model = RewardModel(RLHFConfig())
        >>> reward_model.score(["I loved it.", "I hated it."])  # doctest: +ELLIPSIS
        [..., ...]
        >>> metrics = reward_model.train_reward_model(dataset)
        >>> metrics["pairs"] + metrics["pairs_held_out"] <= len(dataset)
        True
        >>> reward_model.save("my_reward_model")
    """

    def __init__(self, config: RLHFConfig) -> None:
        """Load nothing yet. The first use loads the pipeline's reward model, unless one was trained before."""
        self.config = config
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None
        self.curve = pd.DataFrame()

    def train_reward_model(self, dataset: Dataset) -> dict[str, Any]:
        """Train a new reward model with the settings of `config.reward`, as the stage does. `curve` has its curve by step.

        Args:
            dataset: columns prompt, chosen, rejected, and optionally split. The model trains on the split train, is measured
                on validation, and ignores test. Without the column, every tenth pair is for validation.

        Returns:
            accuracy on the validation pairs, in [0, 1], with accuracy_low and accuracy_high (Wilson, 95 %). margin, the mean
            of the chosen score minus the rejected score. Numbers of pairs.

        Raises:
            StageError: models/sft is missing; a column is missing; no pair is short enough.
        """
        require_repository(self.config, "models/sft")
        warn_of_other_settings(self.config, UP_TO_SFT)
        pairs = pairs_of_dataset(dataset)
        quiet()
        make_deterministic(self.config.seed)
        model = load_reward_model("models/sft", resolve_device(self.config.device), new_head=True)
        tokenizer = load_tokenizer("models/sft")
        no_checkpoints = Checkpoints("reward", self.config, [], every=None)
        settings, seed = self.config.reward, self.config.seed
        curve, metrics = train_reward(model, tokenizer, pairs, settings, seed, no_checkpoints, "the dataset")
        self._loaded, self.curve = (model, tokenizer), pd.DataFrame(curve)
        return metrics

    def score(self, responses: Sequence[str], prompts: Sequence[str] | None = None) -> list[float]:
        """Return the score of each response on the reward model's own scale. Only differences of scores have a meaning.

        Args:
            responses: texts. With `reward.cut`, longer ones are truncated to `reward.max_length` tokens.
            prompts: the text that each response continues. None means no text.

        Raises:
            StageError: models/reward is missing and no model was trained; a text is longer than `reward.max_length` tokens;
                the numbers of prompts and responses differ.
        """
        responses = texts(responses, "responses")
        before = [""] * len(responses) if prompts is None else texts(prompts, "prompts")
        if len(before) != len(responses):
            raise StageError(f"got {len(before)} prompts and {len(responses)} responses; the numbers must be equal")
        longest, cut = self.config.reward.max_length, self.config.reward.cut
        sequences = []
        for prompt, response in zip(before, responses, strict=True):
            first, then, _ = encode_example(self.tokenizer, prompt, response, longest, cut)
            if not then:
                raise StageError(f"{shown(response)} has more than reward.max_length, {longest} tokens; shorten it")
            sequences.append(first + then)
        return score(self.model, sequences, self.tokenizer).tolist()

    def save(self, folder: str | Path) -> None:
        """Write the model to a folder that `load_reward_model` loads (docs/models.md says when plain transformers can, too).

        Raises:
            StageError: as `score`; the pipeline writes the folder; the folder holds other files than a saved model.
        """
        save(self.model, self.tokenizer, _free(folder))

    @property
    def model(self) -> PreTrainedModel:
        """The model that was trained here, or else the pipeline's, which is loaded once."""
        return self._load()[0]

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer of `model`."""
        return self._load()[1]

    def _load(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        if self._loaded is None:
            require_repository(self.config, "models/reward")
            warn_of_other_settings(self.config, (*UP_TO_SFT, "reward"))
            quiet()
            device = resolve_device(self.config.device)
            self._loaded = load_reward_model("models/reward", device), load_tokenizer("models/reward")
        return self._loaded


@dataclass(frozen=True, repr=False)
class TunedPolicy:
    """A policy that `train_ppo` has trained.

    Attributes:
        config: the settings of the training.
        policy, tokenizer: objects of transformers.
        curve: one row for each PPO step, as in plots/ppo.csv: score, reward, kl_penalty (nats per response), entropy (nats
            per token), and others.
        validation: mean score and KL (nats per response) on validation prompts before, during and after the training.

    Example:
        >>> tuned = train_ppo(RLHFConfig(**{"ppo.steps": 2}), lambda prompts, responses: [len(one) for one in responses])
        >>> list(tuned.validation.columns)
        ['step', 'score', 'kl']
        >>> tuned.save("my_policy")
    """

    config: RLHFConfig
    policy: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    curve: pd.DataFrame
    validation: pd.DataFrame

    def __repr__(self) -> str:
        first, last = self.validation.iloc[0], self.validation.iloc[-1]
        return (
            f"<TunedPolicy of {len(self.curve)} steps: score {first['score']:.2f} -> {last['score']:.2f} "
            f"at {last['kl']:.2f} nats of KL per response>"
        )

    def write(self, prompts: Sequence[str], samples: int = 1) -> list[str]:
        """Return the policy's responses to prompts, with the settings of `config.generation`, prompt by prompt.

        Args:
            prompts: texts.
            samples: the number of responses to each prompt.

        Raises:
            StageError: a prompt is empty or too long.
        """
        settings = self.config.generation.model_dump()
        given, count = texts(prompts, "prompts"), at_least_one(samples)
        written = answer(self.policy, self.tokenizer, given, self.config.seed, **settings, samples=count)
        return [one.response for one in written]

    def save(self, folder: str | Path) -> None:
        """Write the policy to a folder that `AutoModelForCausalLM.from_pretrained` loads.

        Raises:
            StageError: the pipeline writes the folder; the folder holds other files than a saved model.
        """
        save(self.policy, self.tokenizer, _free(folder))


def train_ppo(config: RLHFConfig, reward: RewardFunction | RewardModel) -> TunedPolicy:
    """Train a policy with PPO from models/sft, with the settings of `config.ppo`, on your own reward.

    The reward is normalised, and the KL from models/sft is subtracted, as in the pipeline. The critic starts from the trunk of
    the fine-tuned model, or of the RewardModel.

    Args:
        config: the settings.
        reward: a RewardModel, or a function of prompts and responses (two lists of texts of equal length) that returns a
            number for each response.

    Raises:
        StageError: models/sft or the prompts are missing; the function returns anything but numbers; a figure is not finite.

    Example:
        >>> def brief(prompts, responses):
        ...     return [-len(response.split()) for response in responses]
        >>> tuned = train_ppo(RLHFConfig(**{"ppo.steps": 2}), brief)
        >>> len(tuned.curve), len(tuned.write(["The film was"], samples=3))
        (2, 3)
    """
    require_repository(config, "models/sft", "data/prepared/prompts.jsonl")
    warn_of_other_settings(config, UP_TO_SFT)
    if isinstance(reward, type) or not (callable(reward) or isinstance(reward, RewardModel)):
        raise StageError(f"reward should be a function of prompts and responses, or a RewardModel (got {shown(reward)})")
    quiet()
    make_deterministic(config.seed)
    settings, device, tokenizer = config.ppo, resolve_device(config.device), load_tokenizer("models/sft")
    if isinstance(reward, RewardModel):
        if reward.tokenizer.get_vocab() != tokenizer.get_vocab():
            raise StageError("the reward model has another tokenizer than models/sft")
        wanted = reward_of_model(reward.model, settings.missing_eos_penalty)
    else:
        wanted = reward_of_texts(reward, tokenizer, settings.missing_eos_penalty)
    actors = actors_of(settings, wanted, tokenizer, device)
    rows = read_rows("data/prepared/prompts.jsonl", {"prompt": str, "split": str})
    train, _ = prompts_of(rows, "train", tokenizer, settings, actors)
    validation, _ = prompts_of(rows, "validation", tokenizer, settings, actors)
    no_checkpoints = Checkpoints("ppo", config, [], every=None)
    measured = validation[: number_of(settings.validation_prompts, len(validation))]
    run = train_policy(actors, train, measured, settings, config.seed, make_accelerator(device), no_checkpoints)
    return TunedPolicy(config, actors.policy, tokenizer, pd.DataFrame(run.curve), pd.DataFrame(run.validated))


def _free(folder: str | Path) -> Path:
    """Return a folder to save a model to. It is new, or empty, or holds a saved model, which will be replaced."""
    if not isinstance(folder, str | Path) or not str(folder).strip():
        raise StageError(f"folder should name a folder to save to (got {shown(folder)})")
    path = Path(folder).expanduser().resolve()
    for out in outs():
        if out.resolve() in (path, *path.parents) or path in out.resolve().parents:
            raise StageError(f"{folder} belongs to the pipeline's outputs ({out}); name another folder")
    there = {file.name for file in path.iterdir()} if path.is_dir() else set()
    if path.is_file() or (there and not {"config.json", "model.safetensors"} <= there):
        raise StageError(f"{folder} holds other files than a saved model; name a new folder")
    return path
