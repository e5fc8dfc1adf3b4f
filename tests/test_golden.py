"""Our equations against those of trl 1.12.0, the last release with a PPO trainer, on a small fixed batch.

tests/golden/record.py wrote the figures with the code of trl. These differences are intended:

- trl puts the score one place after the last token of a response, if that place exists, and bootstraps from its value. Here
  the episode ends with the last real token. So advantages, returns and the value loss differ for responses of unequal
  length. These figures are compared only for responses that fill the width.
- trl averages each micro-batch by its own tokens. Here a loss is a sum over the minibatch divided by its tokens.
- The approxkl of trl is half a mean square that includes padding. Here it is k3 over real tokens.
- trl adds 1e-7 to the temperature, and shuffles the first epoch too.
"""

import json
from typing import Any

import torch

from rlhf_sentiment.ppo import equations

from .closure import ROOT

GOLDEN = json.loads((ROOT / "tests/golden/trl-1.12.0.json").read_text())
ARGS = GOLDEN["args"]
INPUTS = {name: torch.tensor(value) for name, value in GOLDEN["inputs"].items()}


def mask_of(case: dict[str, Any]) -> torch.Tensor:
    return (torch.arange(INPUTS["values"].shape[1]) <= torch.tensor(case["last"])[:, None]).long()


def same(found: torch.Tensor, golden: Any) -> None:
    torch.testing.assert_close(found, torch.tensor(golden), rtol=1e-5, atol=1e-6)


def test_advantages_and_returns_equal_those_of_trl() -> None:
    case = GOLDEN["whole"]
    mask = mask_of(case)
    rewards = equations.token_rewards(
        INPUTS["scores"], equations.kl_k1(INPUTS["logprobs"], INPUTS["ref_logprobs"]), mask, ARGS["kl_coef"]
    )
    advantages, returns = equations.gae(rewards, INPUTS["values"], mask, ARGS["gamma"], ARGS["lam"])
    same(equations.whiten(advantages, mask), case["advantages"])
    same(returns, case["returns"])


def test_losses_and_their_gradients_equal_those_of_trl() -> None:
    for name, case in ((name, GOLDEN[name]) for name in ("whole", "ragged")):
        mask = mask_of(case)
        log_probs, values = (INPUTS[key].clone().requires_grad_() for key in ("new_logprobs", "vpred"))
        policy = equations.policy_loss(log_probs, INPUTS["logprobs"], torch.tensor(case["advantages"]), mask, ARGS["cliprange"])
        value = equations.value_loss(values, INPUTS["values"], torch.tensor(case["returns"]), mask, ARGS["cliprange_value"])
        tokens = mask.sum()
        same(policy.loss / tokens, case["policy_loss"])
        same(policy.clipped / tokens, case["clip_fraction"])
        ((policy.loss + ARGS["vf_coef"] * value) / tokens).backward()
        assert log_probs.grad is not None
        assert values.grad is not None
        same(log_probs.grad, case["log_probs_gradient"])
        if name == "whole":
            same(value / tokens, case["value_loss"])
            same(values.grad, case["values_gradient"])


def test_the_recorded_batch_clips_some_ratios_and_values() -> None:
    """The recorded batch has clipped and unclipped ratios and values. Otherwise the comparison would test little."""
    whole = GOLDEN["whole"]
    assert 0 < whole["clip_fraction"] < 1
    held = (INPUTS["vpred"] - INPUTS["values"]).abs() > ARGS["cliprange_value"]
    assert held.any()
    assert not held.all()
    assert (torch.tensor(whole["values_gradient"]) == 0).any()
