"""Rewards against values worked by hand, and the state of a PPO run saved and restored."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.models.forward import reward_scores
from rlhf_sentiment.ppo.actors import make_optimizer
from rlhf_sentiment.ppo.loop import LoopState, write_state
from rlhf_sentiment.rewards import Reward, reward_of_model, reward_of_texts
from rlhf_sentiment.sampling.rollout import batch_of

from .conftest import assert_names
from .test_ppo_step import PAD, SETTINGS, Letters, actors_of

BATCH = batch_of([[2], [3, 4], [5]], [[5, 6, 0], [7], [8]], PAD, "cpu")._replace(finished=torch.tensor([True, False, True]))


def test_a_reward_is_the_normalised_score_minus_the_penalty() -> None:
    reward = Reward(lambda batch: torch.tensor([1.0, 3.0, 5.0]), missing_eos_penalty=0.5)
    reward.fit(torch.tensor([1.0, 3.0, 5.0]))
    # mean 3; unbiased variance (4 + 0 + 4) / 2 = 4, so the standard deviation is 2
    assert (reward.mean, reward.std) == (3.0, 2.0)
    assert reward(BATCH).tolist() == [-1.0, -0.5, 1.0]  # the second response has no EOS
    reward.missing_eos_penalty = None
    assert reward(BATCH).tolist() == [-1.0, 0.0, 1.0]


def test_equal_scores_give_a_reward_of_zero() -> None:
    reward = Reward(lambda batch: torch.full((3,), 7.0))
    reward.fit(torch.full((4,), 7.0))
    assert reward(BATCH).tolist() == [0.0, 0.0, 0.0]


def test_the_reward_of_a_model_is_its_score_and_the_model_is_frozen(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("reward")
    reward = reward_of_model(model)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert reward.model is model
    torch.testing.assert_close(reward(BATCH), reward_scores(model, BATCH.sequences, BATCH.attention_mask))


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("text", ["0 numbers", "3 responses"]),
        ({"a": 1}, ["0 numbers", "3 responses"]),
        ([1.0], ["1 numbers", "3 responses"]),
        (["1", "2", "3"], ["no finite number", "'ef'"]),
        ([1.0, math.nan, 2.0], ["no finite number", "'g'"]),
        (None, ["list of numbers"]),
        ([None] * 3, ["list of numbers"]),
    ],
)
def test_a_function_that_returns_no_number_for_each_response_is_refused(given: Any, parts: list[str]) -> None:
    reward = reward_of_texts(lambda prompts, responses: given, Letters())
    with pytest.raises(StageError) as error:
        reward(BATCH)
    assert_names(error.value, "reward function", *parts)


def test_a_saved_state_of_a_run_is_restored(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    def state_of(seed: int) -> LoopState:
        actors = actors_of(tiny_model)
        torch.manual_seed(seed)
        for parameter in actors.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer = make_optimizer(actors, SETTINGS)
        optimizer.step()
        return LoopState(actors, optimizer, last=9, kl_coef=0.2)

    one, other = state_of(1), state_of(2)
    one.step, one.last, one.kl_coef, one.curve, one.validated = 4, 7, 0.3, [{"step": 4}], [{"step": 0}]
    one.actors.reward.mean, one.actors.reward.std = 0.5, 2.0
    write_state(one.everything(), tmp_path)
    drawn = torch.rand(3)
    other.restore(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(torch.rand(3), drawn), "the state of the random numbers is restored"
    assert (other.step, other.last, other.kl_coef, other.curve, other.validated) == (4, 7, 0.3, [{"step": 4}], [{"step": 0}])
    assert (other.actors.reward.mean, other.actors.reward.std) == (0.5, 2.0)
    for ours, theirs in zip(other.actors.parameters(), one.actors.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    moments = [state.optimizer.state_dict()["state"][0]["exp_avg"] for state in (one, other)]
    assert torch.equal(*moments)
