"""PPO from Python, on any reward. It calls the same functions as the stage, in the current folder."""

import inspect
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.prompts import Prompt, as_prepared, at_least_one, rows_of
from ..engine.errors import StageError
from ..engine.messages import shown
from ..engine.records import Row, read_rows
from ..models.devices import quiet, set_up
from ..models.loading import load_tokenizer, save
from ..ppo.actors import actors_of
from ..ppo.loop import make_accelerator, prompts_of, train_policy
from ..rewards import Reward, reward_of_model, reward_of_texts
from ..sampling.answers import answer
from ..sampling.rollout import Responses
from ..settings.counts import number_of
from ..training.checkpoints import Checkpoints
from ..training.dtype import settled
from .config import RLHFConfig
from .repository import UP_TO_SFT, free_folder, require_repository, warn_of_other_settings
from .scoring import RewardModel

PACKAGE = str(Path(__file__).parents[1])
RewardFunction = Callable[[list[str], list[str]], Sequence[float]]


@dataclass(frozen=True, repr=False)
class TunedPolicy:
    """A policy that `train_ppo` has trained.

    Attributes:
        config: the settings of the training.
        policy, tokenizer: objects of transformers.
        curve: one row for each PPO step, as in plots/ppo.csv: score, reward, kl_penalty (nats per response), entropy (nats
            per token), and others.
        validation: mean score and KL (nats per response) on validation prompts before, during and after the training.
        prepared: the rows of data/prepared/prompts.jsonl at the time of the training.

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
    prepared: list[Row]

    def __repr__(self) -> str:
        first, last = self.validation.iloc[0], self.validation.iloc[-1]
        return (
            f"<TunedPolicy of {len(self.curve)} steps: score {first['score']:.2f} -> {last['score']:.2f} "
            f"at {last['kl']:.2f} nats of KL per response>"
        )

    def write(self, prompts: Sequence[Prompt], samples: int = 1) -> list[str]:
        """Return the policy's responses to prompts, with the settings of `config.generation`, prompt by prompt.

        Args:
            prompts: texts, or lists of messages ({role, content}). If the prepared prompts have messages, a text becomes one
                message of the user.
            samples: the number of responses to each prompt.

        Raises:
            StageError: a prompt is empty or too long.
        """
        settings = self.config.generation.model_dump()
        given, count = as_prepared(rows_of(prompts, "prompts"), self.prepared), at_least_one(samples)
        written = answer(self.policy, self.tokenizer, given, self.config.seed, **settings, samples=count)
        return [one.response for one in written]

    def save(self, folder: str | Path) -> None:
        """Write the policy to a folder that `AutoModelForCausalLM.from_pretrained` loads.

        Raises:
            StageError: the pipeline writes the folder; the folder holds other files than a saved model.
        """
        save(self.policy, self.tokenizer, free_folder(folder))


def train_ppo(config: RLHFConfig, reward: RewardFunction | RewardModel) -> TunedPolicy:
    """Train a policy with PPO from models/sft, with the settings of `config.ppo`, on your own reward.

    The reward is normalised, and the KL from models/sft is subtracted, as in the pipeline. The critic reads, or
    starts from, the trunk of the RewardModel; for a function, that of the fine-tuned model.

    Args:
        config: the settings.
        reward: a RewardModel, or a function of prompts and responses (two lists of texts of equal length) that returns a
            number for each response.

    Raises:
        StageError: models/sft or the prompts are missing; the function returns anything but numbers; a figure is not finite.

    Warns:
        UserWarning: the first responses all have the same reward.

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
    settings, device, tokenizer = config.ppo, set_up(config, "train_ppo"), load_tokenizer("models/sft")
    if isinstance(reward, RewardModel):
        if reward.tokenizer.get_vocab() != tokenizer.get_vocab():
            raise StageError("the reward model has another tokenizer than models/sft")
        wanted = reward_of_model(reward.model, settings.missing_eos_penalty)
    else:
        wanted = reward_of_texts(reward, tokenizer, settings.missing_eos_penalty)
    warn_if_constant(wanted, settings.batch_size)
    actors = actors_of(settings, tokenizer, device, wanted)
    no_checkpoints = Checkpoints("ppo", config, [], every=None)
    settings = settled(settings, config.arithmetic, actors.policy, no_checkpoints)
    rows = read_rows("data/prepared/prompts.jsonl", {"prompt": str, "split": str})
    train, _ = prompts_of(rows, "train", tokenizer, settings, actors)
    validation, _ = prompts_of(rows, "validation", tokenizer, settings, actors)
    measured = validation[: number_of(settings.validation_prompts, len(validation))]
    run = train_policy(actors, train, measured, settings, config.seed, make_accelerator(device), no_checkpoints)
    return TunedPolicy(config, actors.policy, tokenizer, pd.DataFrame(run.curve), pd.DataFrame(run.validated), rows)


def warn_if_constant(reward: Reward, count: int) -> None:
    """Let a reward warn if its scores of the first `count` responses are all equal."""
    score_of, seen = reward.score, list[float]()

    def watched(batch: Responses) -> torch.Tensor:
        scores = score_of(batch)
        if len(seen) < count:
            seen.extend(scores.tolist())
            if len(seen) >= count and len(set(seen)) == 1:
                what = f"the reward is {seen[0]:g} for each of the first {len(seen)} responses"
                ours = [frame.filename.startswith(PACKAGE) for frame in inspect.stack(context=0)]
                caller = len(ours) - ours[::-1].index(True)  # the frame that called the package
                warnings.warn(f"{what}; PPO learns nothing from a constant reward", stacklevel=caller + 1)
        return scores

    reward.score = watched
