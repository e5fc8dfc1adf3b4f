"""The equations of proximal policy optimisation, as pure functions of tensors, each with its paper.

A batch has B responses, which padding brings to T tokens. `mask` (B, T) is 1 on real tokens and 0 on padding. The functions
select real tokens with `torch.where`. They do not multiply by the mask, because NaN * 0 is NaN.

[Z19]  Ziegler et al. 2019, Fine-tuning language models from human preferences, 1909.08593
[S15]  Schulman et al. 2015, High-dimensional continuous control using generalized advantage estimation, 1506.02438
[S17]  Schulman et al. 2017, Proximal policy optimization algorithms, 1707.06347
[H24]  Huang et al. 2024, The N+ implementation details of RLHF with PPO, 2403.17031
[K20]  Schulman 2020, Approximating KL divergence, http://joschu.net/blog/kl-approx.html
"""

from typing import NamedTuple

import torch
from torch import Tensor


def masked_sum(x: Tensor, mask: Tensor) -> Tensor:
    """Return the sum of x over real tokens: (B, T), (B, T) -> ()."""
    return torch.where(mask.bool(), x, 0.0).sum()


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of x over real tokens: (B, T), (B, T) -> ()."""
    return masked_sum(x, mask) / mask.sum()


def kl_k1(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """Return log pi - log pi_ref of each sampled token, in nats [K20]: (B, T), (B, T) -> (B, T).

    This estimate of the KL divergence is unbiased and can be negative. The KL penalty in the reward uses it.
    """
    return log_probs - reference_log_probs


def kl_k3(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """Return r - 1 - log r of each sampled token, with r = pi_ref / pi, in nats [K20]: (B, T), (B, T) -> (B, T).

    This estimate of the KL divergence is unbiased, never negative, and has a lower variance than k1. The log shows it.
    """
    log_ratio = reference_log_probs - log_probs
    return torch.expm1(log_ratio) - log_ratio


class PolicyLoss(NamedTuple):
    """The clipped policy loss and its statistics. The first three are sums over real tokens.

    The caller divides the sums once by the number of tokens in the minibatch, however many micro-batches it has.

    Attributes:
        loss: the sum of -min(r A, clip(r) A) [S17, equation 7]. ()
        clipped: the number of tokens whose gradient is 0 because of the clip. ()
        approx_kl: the sum of k3 between the policy that sampled and the current policy, in nats. ()
        ratio_error: the maximum of |r - 1|. ()
    """

    loss: Tensor
    clipped: Tensor
    approx_kl: Tensor
    ratio_error: Tensor


def policy_loss(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> PolicyLoss:
    """Return the clipped surrogate objective, as a loss to minimise [S17, equation 7].

        r_t = pi(token t) / pi_old(token t)          L = sum_t -min(r_t A_t, clip(r_t, 1 - clip, 1 + clip) A_t)

    Args:
        log_probs: under the current policy, with gradient, in nats. (B, T)
        old_log_probs: under the policy that sampled the responses, in nats. (B, T)
        advantages: A of each token. (B, T)
        mask: 1 on real tokens. (B, T)
        clip: how far the ratio r may move from 1.
    """
    real = mask.bool()
    # On padding the ratio is set to 1 before `exp`. There `exp` could be infinite, and its gradient NaN.
    log_ratio = torch.where(real, log_probs - old_log_probs, 0.0)
    ratio = log_ratio.exp()
    unclipped, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    with torch.no_grad():
        approx_kl = kl_k3(torch.where(real, old_log_probs, 0.0), torch.where(real, log_probs, 0.0))
        ratio_error = (ratio - 1).abs().max()
    return PolicyLoss(
        loss=masked_sum(torch.maximum(unclipped, clipped), mask),
        clipped=masked_sum((clipped > unclipped).float(), mask),
        approx_kl=masked_sum(approx_kl, mask),
        ratio_error=ratio_error,
    )


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Return the clipped value loss, half a squared error, as a sum over real tokens [H24, section 3.5].

        L = sum_t 0.5 * max((V_t - R_t)^2, (clip(V_t, V_old_t - clip, V_old_t + clip) - R_t)^2)

    Args:
        values: V by the current critic, with gradient. (B, T)
        old_values: V when the responses were collected. (B, T)
        returns: R, the target. (B, T)
        mask: 1 on real tokens. (B, T)
        clip: how far V may move from its old value, in units of the normalised reward.

    Returns:
        the loss. ()
    """
    values, old_values, returns = (torch.where(mask.bool(), x, 0.0) for x in (values, old_values, returns))
    held = torch.minimum(torch.maximum(values, old_values - clip), old_values + clip)
    return 0.5 * masked_sum(torch.maximum((values - returns) ** 2, (held - returns) ** 2), mask)


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """Return the reward of each token: -kl_coef * KL, plus the score at the last real token [Z19, equation 2].

    Args:
        scores: the reward of each response before the KL penalty. (B,)
        kl: k1 of each token, in nats. (B, T)
        mask: 1 on real tokens. (B, T)
        kl_coef: the KL coefficient, in units of the score per nat.

    Returns:
        rewards, 0 on padding. (B, T)
    """
    rewards = torch.where(mask.bool(), -kl_coef * kl, 0.0)
    last = mask.sum(dim=1) - 1  # (B,)
    rewards[torch.arange(len(scores), device=scores.device), last] += scores
    return rewards


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Return advantages and returns by generalised advantage estimation [S15, equations 11 and 16].

        delta_t = r_t + gamma * V_{t+1} - V_t          A_t = delta_t + gamma * lam * A_{t+1}

    The recursion goes backwards from the last real token of each row. The value after the last token is 0, because the
    episode ends there, with or without EOS.

    Args:
        rewards: r of each token. (B, T)
        values: V of the state before each token. (B, T)
        mask: 1 on real tokens. (B, T)
        gamma: the discount.
        lam: the lambda of GAE.

    Returns:
        advantages A, and returns A + V; both are 0 on padding. (B, T), (B, T)
    """
    real = mask.bool()
    values = torch.where(real, values, 0.0)
    advantages = torch.zeros_like(values)
    next_advantage = torch.zeros_like(values[:, 0])
    next_value = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = torch.where(real[:, t], delta + gamma * lam * next_advantage, 0.0)
        next_value = values[:, t]
        advantages[:, t] = next_advantage
    return advantages, advantages + values


def whiten(x: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """Return x with mean 0 and variance 1 over the real tokens of the whole batch [H24, section 3.6].

    The variance is the unbiased one. The result is 0 on padding. (B, T), (B, T) -> (B, T)
    """
    mean = masked_mean(x, mask)
    variance = masked_sum((x - mean) ** 2, mask) / (mask.sum() - 1).clamp(min=1)
    return torch.where(mask.bool(), (x - mean) * torch.rsqrt(variance + eps), 0.0)


def adapt_kl_coef(kl_coef: float, kl: float, target: float, horizon: float, episodes: int) -> float:
    """Return the next KL coefficient of the adaptive controller [Z19, section 2.2].

        e = clip(KL / target - 1, -0.2, 0.2)          coef' = coef * (1 + e * episodes / horizon)

    Args:
        kl_coef: the coefficient now.
        kl: the mean KL of the last batch, in nats per response.
        target: the KL to hold, in nats per response.
        horizon: the number of episodes in which the coefficient can change by about 20 %.
        episodes: the number of episodes since the last call.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * episodes / horizon)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """Return 1 - Var(returns - values) / Var(returns) over real tokens: (B, T), (B, T), (B, T) -> float.

    The result is 1 for a critic that predicts every return, and 0 for a critic that predicts only their mean. The result is
    also 0 where all returns are equal.
    """
    real = mask.bool()
    spread = returns[real].var(correction=0)
    return float(1 - (returns[real] - values[real]).var(correction=0) / spread) if spread > 0 else 0.0
