"""The equations of PPO against values worked by hand. Comments show the arithmetic."""

import math

import pytest
import torch

from rlhf_sentiment.ppo import equations

NAN = float("nan")


def close(actual: torch.Tensor, expected: list) -> None:
    torch.testing.assert_close(actual, torch.tensor(expected), rtol=0, atol=1e-6)


def test_masked_mean_ignores_nan_under_padding() -> None:
    x, mask = torch.tensor([[1.0, 2.0, NAN], [6.0, NAN, NAN]]), torch.tensor([[1, 1, 0], [1, 0, 0]])
    assert equations.masked_mean(x, mask).item() == pytest.approx(3.0)  # (1 + 2 + 6) / 3


def test_whiten_is_over_the_whole_batch() -> None:
    x, mask = torch.tensor([[1.0, 2.0, NAN], [3.0, 99.0, 99.0]]), torch.tensor([[1, 1, 0], [1, 0, 0]])
    # mean 2, unbiased variance ((1-2)^2 + 0 + (3-2)^2) / 2 = 1
    close(equations.whiten(x, mask), [[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])


def test_kl_estimators() -> None:
    own, reference = torch.log(torch.tensor([[0.5, 0.2]])), torch.log(torch.tensor([[0.25, 0.4]]))
    close(equations.kl_k1(own, reference), [[math.log(2), -math.log(2)]])
    # r = 1/2: 0.5 - 1 + ln 2 = 0.193147; r = 2: 2 - 1 - ln 2 = 0.306853
    close(equations.kl_k3(own, reference), [[0.193147, 0.306853]])


def test_kl_k3_is_never_negative() -> None:
    torch.manual_seed(0)
    own, reference = torch.randn(50, 20), torch.randn(50, 20)
    assert (equations.kl_k3(own, reference) >= 0).all()
    assert (equations.kl_k3(own, own) == 0).all()


def test_token_rewards_put_the_score_on_the_last_real_token() -> None:
    kl = torch.tensor([[0.1, 0.2, NAN], [0.3, NAN, NAN]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    rewards = equations.token_rewards(torch.tensor([1.0, -2.0]), kl, mask, kl_coef=0.5)
    # row 1: -0.05, -0.1 + 1; row 2: -0.15 - 2
    close(rewards, [[-0.05, 0.9, 0.0], [-2.15, 0.0, 0.0]])


def test_gae_by_hand_with_unequal_lengths() -> None:
    rewards = torch.tensor([[0.0, 1.0, 7.0], [1.0, 7.0, 7.0]])
    values = torch.tensor([[0.5, 0.25, NAN], [0.5, NAN, NAN]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    advantages, returns = equations.gae(rewards, values, mask, gamma=0.9, lam=0.5)
    # row 1, t=1: delta = 1 + 0 - 0.25 = 0.75            A = 0.75
    #        t=0: delta = 0 + 0.9 * 0.25 - 0.5 = -0.275  A = -0.275 + 0.45 * 0.75 = 0.0625
    # row 2, t=0: delta = 1 - 0.5 = 0.5                  A = 0.5
    close(advantages, [[0.0625, 0.75, 0.0], [0.5, 0.0, 0.0]])
    close(returns, [[0.5625, 1.0, 0.0], [1.0, 0.0, 0.0]])


def test_gae_of_a_batch_is_that_of_each_row_alone() -> None:
    torch.manual_seed(1)
    lengths = [1, 3, 7, 5]
    rewards, values = torch.randn(4, 7), torch.randn(4, 7)
    mask = torch.tensor([[1] * n + [0] * (7 - n) for n in lengths])
    advantages, _ = equations.gae(rewards, values, mask, 0.97, 0.9)
    for row, n in enumerate(lengths):
        # An independent sum: A_t = sum_k (gamma lam)^k delta_{t+k}.
        v = [*values[row, :n].tolist(), 0.0]
        delta = [rewards[row, t].item() + 0.97 * v[t + 1] - v[t] for t in range(n)]
        expected = [sum((0.97 * 0.9) ** (k - t) * delta[k] for k in range(t, n)) for t in range(n)]
        close(advantages[row], [*expected, *[0.0] * (7 - n)])


def test_with_gamma_and_lambda_one_the_return_is_the_sum_of_what_follows() -> None:
    rewards, values = torch.tensor([[1.0, 2.0, 4.0]]), torch.randn(1, 3)
    _, returns = equations.gae(rewards, values, torch.ones(1, 3), 1.0, 1.0)
    close(returns, [[7.0, 6.0, 4.0]])


def test_policy_loss_clips_the_ratio() -> None:
    ratio = torch.tensor([[1.0, 1.5, 0.5, 1.5, 123.0]])
    advantages = torch.tensor([[1.0, 1.0, 1.0, -1.0, 9.0]])
    mask = torch.tensor([[1, 1, 1, 1, 0]])
    found = equations.policy_loss(ratio.log(), torch.zeros(1, 5), advantages, mask, clip=0.2)
    # -min(rA, clip(r)A): -1, -1.2 (clipped), -0.5, +1.5 (the clip would be 1.2, and the larger loss counts)
    assert found.loss.item() == pytest.approx(-1 - 1.2 - 0.5 + 1.5)
    assert found.clipped.item() == 1
    # k3 with r = new / old: sum of r - 1 - ln r over the real tokens
    assert found.approx_kl.item() == pytest.approx(sum(r - 1 - math.log(r) for r in (1.0, 1.5, 0.5, 1.5)), abs=1e-6)
    assert found.ratio_error.item() == pytest.approx(0.5)


def test_a_nan_under_padding_reaches_no_loss_and_no_gradient() -> None:
    log_probs = torch.tensor([[-1.0, NAN]], requires_grad=True)
    values = torch.tensor([[0.5, NAN]], requires_grad=True)
    mask = torch.tensor([[1, 0]])
    old = torch.tensor([[-1.1, NAN]])
    policy = equations.policy_loss(log_probs, old, torch.tensor([[1.0, NAN]]), mask, 0.2).loss
    value = equations.value_loss(values, torch.tensor([[0.4, NAN]]), torch.tensor([[1.0, NAN]]), mask, 0.2)
    (policy + value).backward()
    assert policy.isfinite()
    assert value.isfinite()
    assert log_probs.grad is not None
    assert values.grad is not None
    assert log_probs.grad.isfinite().all()
    assert values.grad.isfinite().all()


def test_value_loss_takes_the_larger_error() -> None:
    values, old, returns = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, 2.0]])
    # token 1: V 1 -> error 0; held at 0.2 -> 0.64; token 2: both 4. Half the sum: 2.32
    assert equations.value_loss(values, old, returns, torch.ones(1, 2), clip=0.2).item() == pytest.approx(2.32)


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (6.0, 0.1),  # on target
        (6.6, 0.1 * (1 + 0.1 * 64 / 1000)),  # 10 % above
        (60.0, 0.1 * (1 + 0.2 * 64 / 1000)),  # clipped at +20 %
        (0.0, 0.1 * (1 - 0.2 * 64 / 1000)),  # clipped at -20 %
    ],
)
def test_adaptive_kl_coefficient(kl: float, expected: float) -> None:
    assert equations.adapt_kl_coef(0.1, kl, target=6.0, horizon=1000, episodes=64) == pytest.approx(expected)


def test_explained_variance() -> None:
    returns, mask = torch.tensor([[1.0, 3.0, NAN]]), torch.tensor([[1, 1, 0]])
    assert equations.explained_variance(returns, returns, mask) == 1.0
    assert equations.explained_variance(torch.tensor([[2.0, 2.0, NAN]]), returns, mask) == 0.0
    # errors -1 and 1 around values 2, 2 -> above; values 1, 2: errors 0 and 1, variance 0.25 of 1 -> 0.75
    assert equations.explained_variance(torch.tensor([[1.0, 2.0, NAN]]), returns, mask) == pytest.approx(0.75)
