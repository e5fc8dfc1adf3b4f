"""One step of PPO has two halves: `collect` experience with the policy as it is, then `learn` from that experience.

The step follows Ziegler et al. 2019 (1909.08593), with the details that Huang et al. 2024 (2403.17031) list.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.nn.functional import pad

from ..engine.errors import StageError
from ..engine.records import Row
from ..models.devices import precision
from ..sampling.rollout import Responses, respond, score_tokens
from ..settings.ppo import PPOSettings
from . import equations
from .actors import Actors


class Experience(NamedTuple):
    """A batch of B responses of at most T tokens, with their rewards and values. No tensor has the vocabulary's width.

    | field          | shape     | content                                                            |
    |----------------|-----------|--------------------------------------------------------------------|
    | batch          |           | the responses (`rollout.Responses`)                                |
    | log_probs      | (B, T)    | under the policy that sampled the tokens, in nats                  |
    | values         | (B, T)    | the critic's V of the state before each token                      |
    | states         | (B, T, D) | what a critic without a trunk reads, else None                     |
    | advantages     | (B, T)    | whitened over the whole batch                                      |
    | returns        | (B, T)    | the critic's target                                                |
    | scores         | (B,)      | raw scores of the reward, before normalisation                     |
    | rewards        | (B,)      | what PPO maximises: the reward minus kl_coef * KL                  |
    | kl_k1, kl_k3   | (B,)      | two estimates of the KL from the reference, in nats per response   |
    | kl_coef        | float     | the KL coefficient of this batch                                   |
    | entropy        | ()        | the mean over tokens, in nats                                      |
    """

    batch: Responses
    log_probs: Tensor
    values: Tensor
    states: Tensor | None
    advantages: Tensor
    returns: Tensor
    scores: Tensor
    rewards: Tensor
    kl_k1: Tensor
    kl_k3: Tensor
    kl_coef: float
    entropy: Tensor

    def figures(self) -> Row:
        """Return the figures that are logged for each step: means over the batch, and the critic's explained variance."""
        return {
            "score": float(self.scores.mean()),
            "reward": float(self.rewards.mean()),
            "kl_penalty": float(self.kl_k1.mean()),
            "kl_k3": float(self.kl_k3.mean()),
            "kl_coef": self.kl_coef,
            "entropy": float(self.entropy),
            "response_tokens": float(self.batch.response_mask.sum(dim=1).float().mean()),
            "finished": float(self.batch.finished.float().mean()),
            "explained_variance": equations.explained_variance(self.values, self.returns, self.batch.response_mask),
        }


def collect(
    actors: Actors, prompts: Sequence[Sequence[int]], noise: Tensor, settings: PPOSettings, kl_coef: float
) -> Experience:
    """Sample a response to each prompt, and compute the reward, value and advantage of each token.

    Args:
        prompts: token ids. [B]
        noise: one uniform random number for each token. (B, T)
        kl_coef: the KL coefficient of this batch.
    """
    return assess(actors, sample(actors, prompts, noise, settings), settings, kl_coef)


def sample(actors: Actors, prompts: Sequence[Sequence[int]], noise: Tensor, settings: PPOSettings) -> Responses:
    """Sample a response to each prompt. The arguments are those of `collect`.

    Every token of the vocabulary can be sampled, at `ppo.temperature`. Top-k or top-p would change the policy, and the KL would
    then be the KL of the changed policy.
    """
    with precision(settings.dtype, actors.policy.device):
        return respond(actors.policy, prompts, noise, actors.eos, actors.pad, settings.temperature)


@torch.no_grad()
def score(actors: Actors, batch: Responses, settings: PPOSettings) -> Tensor:
    """Return the raw score of each response, (B,).

    Raises:
        StageError: a score is not finite.
    """
    scores = []
    for rows in torch.arange(len(batch.finished), device=batch.finished.device).split(settings.micro_batch_size):
        with precision(settings.dtype, rows.device):
            scores.append(actors.reward.score(batch.take(rows)))
    return _finite("the reward model's score", torch.cat(scores))


@torch.no_grad()
def assess(actors: Actors, batch: Responses, settings: PPOSettings, kl_coef: float) -> Experience:
    """Compute the reward, value and advantage of each token. The arguments are those of `collect`.

    Raises:
        StageError: a score, a log-probability or a value is not finite.
    """
    # 1. Score the tokens in micro-batches with the policy, the reference, the reward and the critic.
    device, mask = batch.sequences.device, batch.response_mask
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for rows in torch.arange(len(mask), device=device).split(settings.micro_batch_size):
        part = batch.take(rows)
        with precision(settings.dtype, device):
            own = score_tokens(actors.policy, part, settings.temperature, with_entropy=True)
            reference = score_tokens(actors.reference, part, settings.temperature)
            score, read = actors.score_and_states(part)
            values = actors.values(part, read)
        parts["log_probs"].append(own.log_probs)
        parts["entropy"].append(own.entropy)
        parts["reference"].append(reference.log_probs)
        parts["scores"].append(score)
        parts["values"].append(values)
        if read is not None:
            parts["states"].append(read)
    scores = _finite("the reward model's score", torch.cat(parts.pop("scores")))
    whole = {name: _padded(each, batch.length) for name, each in parts.items()}
    own_log_probs, values = _finite("a log-probability", whole["log_probs"]), _finite("a value", whole["values"])

    # 2. The reward of each token: -kl_coef * KL at every token, and the response's reward at its last real token.
    k1 = equations.kl_k1(own_log_probs, whole["reference"])
    rewards = equations.token_rewards(actors.reward.shaped(scores, batch.finished), k1, mask, kl_coef)

    # 3. Advantages by GAE, whitened over the whole batch.
    advantages, returns = equations.gae(rewards, values, mask, settings.gamma, settings.lam)
    real = mask.bool()
    return Experience(
        batch=batch,
        log_probs=own_log_probs,
        values=values,
        states=whole.get("states"),
        advantages=equations.whiten(advantages, mask),
        returns=returns,
        scores=scores,
        rewards=rewards.sum(dim=1),
        kl_k1=torch.where(real, k1, 0.0).sum(dim=1),
        kl_k3=torch.where(real, equations.kl_k3(own_log_probs, whole["reference"]), 0.0).sum(dim=1),
        kl_coef=kl_coef,
        entropy=equations.masked_mean(whole["entropy"], mask),
    )


def learn(
    actors: Actors,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    experience: Experience,
    settings: PPOSettings,
    coordinates: tuple[int, ...],
) -> dict[str, float]:
    """Run several epochs of clipped PPO over one batch of experience.

    Args:
        coordinates: seed and step, which decide the shuffle of each epoch.

    Returns:
        policy_loss, value_loss, approx_kl, clip_fraction and grad_norm, each the mean over optimizer steps. And
        first_ratio_error, max |ratio - 1| in the first minibatch, which is 0 except for rounding.

    Raises:
        StageError: a loss or a gradient is not finite. The policy then stays as the last good optimizer step left it.
    """
    size = settings.batch_size // settings.minibatches
    totals = dict.fromkeys(("policy_loss", "value_loss", "approx_kl", "clip_fraction", "grad_norm"), 0.0)
    first_ratio_error = 0.0
    optimizer_steps = settings.ppo_epochs * settings.minibatches
    for epoch in range(settings.ppo_epochs):
        # The first epoch keeps the order of the batch, whose prompts are shuffled already. Its micro-batches are then those
        # of `assess` (where they fit into a minibatch), so that the first ratios are exactly 1, also in bfloat16.
        order = np.random.default_rng((*coordinates, epoch)).permutation(settings.batch_size)
        order = order if epoch else np.arange(settings.batch_size)
        for number, minibatch in enumerate(torch.from_numpy(order).to(experience.log_probs.device).split(size)):
            sums, ratio_error = _gradients(actors, accelerator, experience, minibatch, settings)
            if epoch == number == 0:
                first_ratio_error = ratio_error
            norm = accelerator.clip_grad_norm_(actors.parameters(), settings.max_grad_norm)
            figures = dict(zip(totals, [*sums.tolist(), float(norm)], strict=True))
            for name, figure in figures.items():
                if not math.isfinite(figure):
                    raise StageError(f"{name} is {figure} in epoch {epoch + 1}; lower ppo.learning_rate")
                totals[name] += figure / optimizer_steps
            optimizer.step()
            optimizer.zero_grad()
    return totals | {"first_ratio_error": first_ratio_error}


def _gradients(
    actors: Actors, accelerator: Accelerator, experience: Experience, minibatch: Tensor, settings: PPOSettings
) -> tuple[Tensor, float]:
    """Add the gradients of one minibatch (an index of rows) to the weights that learn, one micro-batch at a time.

    Each loss is a sum over real tokens, divided by the tokens of the whole minibatch. The size of the micro-batches therefore
    changes nothing.

    Returns:
        policy loss, value loss, approximate KL and share of clipped tokens, each a mean over real tokens, (4,); and the
        maximum of |ratio - 1|.
    """
    device = experience.log_probs.device
    tokens = experience.batch.response_mask[minibatch].sum()
    sums, ratio_error = torch.zeros(4, device=device), 0.0
    for rows in minibatch.split(settings.micro_batch_size):
        part = experience.batch.take(rows)
        mask, length = part.response_mask, part.length
        with precision(settings.dtype, device):
            own = score_tokens(actors.policy, part, settings.temperature)
        policy = equations.policy_loss(
            own.log_probs,
            experience.log_probs[rows, :length],
            experience.advantages[rows, :length],
            mask,
            settings.clip_range,
        )
        accelerator.backward(policy.loss / tokens)  # the memory of the policy's graph is freed before the critic's is needed
        read = None if experience.states is None else experience.states[rows, :length]
        with precision(settings.dtype, device):
            values = actors.values(part, read)
        value = equations.value_loss(
            values, experience.values[rows, :length], experience.returns[rows, :length], mask, settings.clip_range_value
        )
        accelerator.backward(settings.vf_coef * value / tokens)
        sums += torch.stack([policy.loss, value, policy.approx_kl, policy.clipped]).detach() / tokens
        ratio_error = max(ratio_error, float(policy.ratio_error))
    return sums, ratio_error


def _finite(name: str, tensor: Tensor) -> Tensor:
    if not torch.isfinite(tensor).all():
        raise StageError(f"{name} is not finite; lower ppo.learning_rate, or check models/sft and models/reward")
    return tensor


def _padded(parts: list[Tensor], length: int) -> Tensor:
    """Concatenate parts of different lengths, with zeros on the right: [(b, t, ...)] -> (B, length, ...)."""
    return torch.cat([pad(part, (0, 0) * (part.dim() - 2) + (0, length - part.shape[1])) for part in parts])
