"""A reward model from Python: train it on your own pairs, and score texts with it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.pairs import pairs_of_dataset
from ..data.prompts import Prompt, rows_of, texts
from ..engine.errors import StageError
from ..engine.inputs import require
from ..engine.messages import shown
from ..engine.records import Row, read_rows
from ..evaluation.contestants import CONTESTANTS, REFERENCE
from ..models.devices import prepare_device, quiet, set_up
from ..models.loading import load_reward_model, load_tokenizer, save
from ..models.tokens import encode_example
from ..reward_model import score, train_reward
from ..training.checkpoints import Checkpoints
from ..training.dtype import settled
from .config import RLHFConfig
from .preferences import warn_of_few
from .repository import UP_TO_SFT, free_folder, require_repository, warn_of_other_settings


class RewardModel:
    """A reward model: the pipeline's, or one that is trained here from models/sft on your own pairs.

    Example:
        >>> reward_model = RewardModel(RLHFConfig())
        >>> reward_model.score(["I loved it.", "I hated it."])  # doctest: +ELLIPSIS
        [..., ...]
        >>> metrics = reward_model.train_reward_model(dataset)
        >>> metrics["pairs"] + metrics["pairs_held_out"] <= len(dataset)
        True
        >>> a, b = reward_model.probability(["I loved it.", "I hated it."], over=["I hated it.", "I loved it."])
        >>> round(a + b, 6)
        1.0
        >>> reward_model.save("my_reward_model")
    """

    def __init__(self, config: RLHFConfig) -> None:
        """Load nothing yet. The first use loads the pipeline's reward model, unless one was trained before."""
        self.config = config
        self._loaded: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None
        self._mean: float | None = None
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

        Warns:
            UserWarning: there are fewer than 100 pairs.
        """
        require_repository(self.config, "models/sft")
        warn_of_other_settings(self.config, UP_TO_SFT)
        pairs = pairs_of_dataset(dataset)
        warn_of_few([row for row in pairs if row["split"] in ("train", "validation")])
        quiet()
        model = load_reward_model("models/sft", set_up(self.config, "train_reward_model"), new_head=True)
        tokenizer = load_tokenizer("models/sft")
        no_checkpoints = Checkpoints("reward", self.config, [], every=None)
        settings = settled(self.config.reward, self.config.arithmetic, model, no_checkpoints)
        seed = self.config.seed
        curve, metrics = train_reward(model, tokenizer, pairs, settings, seed, no_checkpoints, "the dataset")
        self._loaded, self._mean, self.curve = (model, tokenizer), None, pd.DataFrame(curve)
        return metrics

    def score(self, responses: Sequence[str], prompts: Sequence[Prompt] | None = None) -> list[float]:
        """Return the score of each response on the reward model's own scale. Only differences of scores have a meaning.

        Args:
            responses: texts. With `reward.cut`, longer ones are truncated to `reward.max_length` tokens.
            prompts: the text that each response continues, or the list of messages ({role, content}) that it answers. None
                means no text.

        Raises:
            StageError: models/reward is missing and no model was trained; a text is longer than `reward.max_length` tokens;
                the numbers of prompts and responses differ.
        """
        responses = texts(responses, "responses")
        return self._scores(responses, _prompts(prompts, responses)).tolist()

    def probability(
        self, responses: Sequence[str], over: Sequence[str] | None = None, prompts: Sequence[Prompt] | None = None
    ) -> list[float]:
        """Return the probability that each response is preferred, under the Bradley-Terry model of the reward model.

            P(A preferred over B) = sigmoid(score(A) - score(B))

        With `over`, B is another response to the same prompt. It is the probability that an annotator of the training pairs
        chooses A, if the reward model is right.

        Without `over`, score(B) is the mean score of the fine-tuned model's answers to the test prompts (data/samples/sft.jsonl
        of the last run). A response as good as these answers gets 0.5. This is not P(positive), which `Judge` gives.

        Args:
            responses: texts A.
            over: texts B, one for each response. None means the mean score of the fine-tuned model's answers.
            prompts: the text that A and B continue, or the list of messages that they answer. None means no text.

        Raises:
            StageError: as `score`; the answers of the fine-tuned model are missing; the lengths of the lists differ.
        """
        responses = texts(responses, "responses")
        before = _prompts(prompts, responses)
        scores = self._scores(responses, before)
        other = (
            self._reference_mean() if over is None else self._scores(_as_many(texts(over, "over"), "over", responses), before)
        )
        return torch.sigmoid(scores - other).tolist()

    def _scores(self, responses: list[str], prompts: list[Row]) -> torch.Tensor:
        """Return the score of each response to its prompt, (N,)."""
        longest, cut = self.config.reward.max_length, self.config.reward.cut
        sequences = []
        for number, (row, response) in enumerate(zip(prompts, responses, strict=True), start=1):
            first, then, _ = encode_example(self.tokenizer, row, response, longest, cut, f"prompts, number {number}")
            if not then:
                raise StageError(f"{shown(response)} has more than reward.max_length, {longest} tokens; shorten it")
            sequences.append(first + then)
        return score(self.model, sequences, self.tokenizer)

    def _reference_mean(self) -> float:
        """Return the mean score of the fine-tuned model's answers to the test prompts. It is computed once for each model."""
        if self._mean is None:
            path = CONTESTANTS[REFERENCE].answers
            require(Path(path))
            rows = read_rows(path, {"prompt": str, "response": str})
            longest = self.config.reward.max_length
            both = (encode_example(self.tokenizer, row, row["response"], longest, cut=True, where=path) for row in rows)
            self._mean = float(score(self.model, [first + then for first, then, _ in both if then], self.tokenizer).mean())
        return self._mean

    def save(self, folder: str | Path) -> None:
        """Write the model to a folder that `load_reward_model` loads (docs/models.md says when plain transformers can, too).

        Raises:
            StageError: as `score`; the pipeline writes the folder; the folder holds other files than a saved model.
        """
        save(self.model, self.tokenizer, free_folder(folder))

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
            device = prepare_device(self.config, "RewardModel")
            self._loaded = load_reward_model("models/reward", device), load_tokenizer("models/reward")
        return self._loaded


def _prompts(given: Sequence[Prompt] | None, responses: list[str]) -> list[Row]:
    """Return a row with the prompt of each response. None means empty prompts.

    Raises:
        StageError: `given` is no list of prompts, or is longer or shorter than `responses`.
    """
    return [Row(prompt="") for _ in responses] if given is None else _as_many(rows_of(given, "prompts"), "prompts", responses)


def _as_many(given: list[Any], name: str, responses: list[str]) -> list[Any]:
    """Return `given`, if it is as long as `responses`.

    Raises:
        StageError: it is longer or shorter. The message has its name.
    """
    if len(given) != len(responses):
        raise StageError(f"got {len(given)} {name} and {len(responses)} responses; the numbers must be equal")
    return given
