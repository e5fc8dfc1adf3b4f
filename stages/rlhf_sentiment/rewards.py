"""Rewards: PPO maximises a `Reward`, a callable from a batch of responses to one number for each response.

To add a kind of reward, add a function here that returns a `Reward`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .engine.errors import StageError
from .engine.messages import shown
from .models.forward import reward_scores
from .models.tokens import decode_response
from .sampling.rollout import Responses


@dataclass
class Reward:
    """The reward of a response: its normalised score, minus a penalty where the response has no EOS.

        reward = (score - mean) / std - (missing_eos_penalty if there is no EOS)

    Attributes:
        score: gives the raw score of each response, on any scale. `Responses` -> (B,)
        missing_eos_penalty: subtracted where EOS is missing, in units of the normalised score. None subtracts nothing.
        model: the reward model that gives the score. A critic starts from it. None where the score comes from no model.
        mean, std: mean and standard deviation of the raw scores. `fit` sets them. Until then, they change nothing.
    """

    score: Callable[[Responses], Tensor]
    missing_eos_penalty: float | None = None
    model: PreTrainedModel | None = None
    mean: float = 0.0
    std: float = 1.0

    def __call__(self, batch: Responses) -> Tensor:
        """Return the reward of each response, (B,)."""
        return self.shaped(self.score(batch), batch.finished)

    def fit(self, scores: Tensor) -> None:
        """Set the scale so that these raw scores get mean 0 and variance 1, (N,).

        The scores are those of the reference policy's responses (Ziegler et al. 2019, 1909.08593, section 2).
        """
        self.mean, self.std = float(scores.mean()), max(float(scores.std()), 1e-6)

    def shaped(self, scores: Tensor, finished: Tensor) -> Tensor:
        """Return the rewards of responses whose raw scores are known: (B,), (B,) -> (B,).

        Args:
            scores: raw scores. (B,)
            finished: True where the response ends with EOS. (B,)
        """
        rewards = (scores - self.mean) / self.std
        if self.missing_eos_penalty is None:
            return rewards
        return torch.where(finished, rewards, rewards - self.missing_eos_penalty)


def reward_of_model(model: PreTrainedModel, missing_eos_penalty: float | None = None) -> Reward:
    """Return the reward that a reward model gives. The model is frozen."""
    model.requires_grad_(False)
    return Reward(lambda batch: reward_scores(model, batch.sequences, batch.attention_mask), missing_eos_penalty, model)


def reward_of_texts(
    function: Callable[[list[str], list[str]], Sequence[float]],
    tokenizer: PreTrainedTokenizerBase,
    missing_eos_penalty: float | None = None,
) -> Reward:
    """Return the reward that a function of texts gives.

    Args:
        function: gets prompts and responses, two lists of equal length, and returns one number for each response. The texts
            have no special tokens. PPO passes at most `ppo.micro_batch_size` responses at a time.
        tokenizer: decodes prompts and responses.
        missing_eos_penalty: as in `Reward`.

    Raises:
        StageError: when PPO calls the function, and the result is not one finite number for each response.
    """

    def score(batch: Responses) -> Tensor:
        prompts = batch.prompts()
        responses = [decode_response(tokenizer, *both) for both in zip(prompts, batch.tokens(), strict=True)]
        given = function([tokenizer.decode(prompt, skip_special_tokens=True) for prompt in prompts], responses)
        try:
            numbers = [] if isinstance(given, str | dict) else list(given)
            scores = torch.tensor([math.nan if isinstance(one, str) else float(one) for one in numbers])
        except (TypeError, ValueError) as error:
            raise StageError(f"the reward function should return a list of numbers: {error}") from error
        if len(scores) != len(responses):
            raise StageError(f"the reward function returned {len(scores)} numbers for {len(responses)} responses")
        for response, one in zip(responses, scores.tolist(), strict=True):
            if not math.isfinite(one):
                raise StageError(f"the reward function returned no finite number for the response {shown(response)}")
        return scores.to(batch.sequences.device)

    return Reward(score, missing_eos_penalty)
