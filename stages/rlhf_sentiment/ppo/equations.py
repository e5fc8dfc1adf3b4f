"""Proximal policy optimisation as pure functions of tensors, to be read against the papers.

B responses are padded to T tokens; `mask` (B, T) is 1 on real tokens. What stands under padding never counts: values
are chosen with `where`, not multiplied away, so that a NaN there stays there.

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
    """The sum of x over real tokens. (B, T), (B, T) -> ()"""
    return torch.where(mask.bool(), x, 0.0).sum()


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """The mean of x over real tokens. (B, T), (B, T) -> ()"""
    return masked_sum(x, mask) / mask.sum()


def whiten(x: Tensor, mask: Tensor, eps: float = 1e-8) -> Tensor:
    """x shifted and scaled to mean 0 and variance 1 over the real tokens of the whole batch; 0 under padding [H24, 3.6].

    The variance is the unbiased one. (B, T), (B, T) -> (B, T)
    """
    mean = masked_mean(x, mask)
    variance = masked_sum((x - mean) ** 2, mask) / (mask.sum() - 1).clamp(min=1)
    return torch.where(mask.bool(), (x - mean) * torch.rsqrt(variance + eps), 0.0)


def kl_k1(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """log pi - log pi_ref of each sampled token: unbiased, of either sign, what the reward is charged for [K20]. (B, T)"""
    return log_probs - reference_log_probs


def kl_k3(log_probs: Tensor, reference_log_probs: Tensor) -> Tensor:
    """r - 1 - log r with r = pi_ref / pi: unbiased, never negative, of lower variance: what is watched [K20]. (B, T)"""
    log_ratio = reference_log_probs - log_probs
    return torch.expm1(log_ratio) - log_ratio


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """-kl_coef * KL at each token, and the score at the last real one [Z19, equation 2].

    Args:
        scores: (B,)
        kl: k1 of each token. (B, T)

    Returns:
        rewards; 0 under padding. (B, T)
    """
    rewards = torch.where(mask.bool(), -kl_coef * kl, 0.0)
    last = mask.sum(dim=1) - 1  # (B,)
    rewards[torch.arange(len(scores), device=scores.device), last] += scores
    return rewards


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation [S15, equations 11 and 16], from the last real token of each row backwards.

        delta_t = r_t + gamma * V_{t+1} - V_t          A_t = delta_t + gamma * lam * A_{t+1}

    The value after a row's last token is 0: the episode ends there, with EOS or without.

    Returns:
        advantages, returns = advantages + values; 0 under padding. (B, T), (B, T)
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


class PolicyLoss(NamedTuple):
    """Sums over real tokens: dividing by the minibatch's tokens is the caller's, once, for all its micro-batches.

    loss: -min(r A, clip(r) A) [S17, equation 7]; clipped: tokens whose gradient the clip cut; approx_kl: k3 of the
    sampling policy against the current one. ratio_error: max |r - 1|, no sum.
    """

    loss: Tensor
    clipped: Tensor
    approx_kl: Tensor
    ratio_error: Tensor


def policy_loss(log_probs: Tensor, old_log_probs: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> PolicyLoss:
    """The clipped surrogate objective, to be minimised. All (B, T)."""
    real = mask.bool()
    # Under padding the ratio is 1, before exp sees it: no infinity whose gradient is NaN.
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
    """Half the squared error, the larger of that of V and of V held within `clip` of what it was [H24, 3.5].

    A sum over real tokens. All (B, T) -> ()
    """
    values, old_values, returns = (torch.where(mask.bool(), x, 0.0) for x in (values, old_values, returns))
    held = torch.minimum(torch.maximum(values, old_values - clip), old_values + clip)
    return 0.5 * masked_sum(torch.maximum((values - returns) ** 2, (held - returns) ** 2), mask)


def adapt_kl_coef(kl_coef: float, kl: float, target: float, horizon: float, episodes: int) -> float:
    """The next KL coefficient of the adaptive controller [Z19, section 2.2].

        e = clip(KL / target - 1, -0.2, 0.2)          coef' = coef * (1 + e * episodes / horizon)

    Args:
        kl, target: nats per response.
        horizon: episodes in which the coefficient can change by about 20 %.
        episodes: episodes since the last call.
    """
    error = min(max(kl / target - 1, -0.2), 0.2)
    return kl_coef * (1 + error * episodes / horizon)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """1 - Var(returns - values) / Var(returns) over real tokens: 1 where the critic knows all, 0 where it knows nothing."""
    real = mask.bool()
    spread = returns[real].var(correction=0)
    return float(1 - (returns[real] - values[real]).var(correction=0) / spread) if spread > 0 else 0.0
