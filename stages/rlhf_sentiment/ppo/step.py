"""One step of PPO has two halves: `collect` experience with the policy as it is, then `learn` from that experience.

The step follows Ziegler et al. 2019 (1909.08593), with the details that Huang et al. 2024 (2403.17031) list.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.functional import pad

from ..engine.errors import StageError
from ..engine.ranks import alive, rank, size, working
from ..engine.records import Row
from ..models.devices import precision
from ..models.exchange import joined, of_each_rank, own_parts, own_rows, whole, whole_list
from ..models.forward import step_along
from ..sampling.rollout import Responses, batch_of, respond, score_tokens
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


def sample(
    actors: Actors, prompts: Sequence[Sequence[int]], noise: Tensor, settings: PPOSettings, blocks: int | None = None
) -> Responses:
    """Sample a response to each prompt. The arguments are those of `collect`.

    With several ranks, each samples the responses to its prompts, and gets those of the others.

    Every token of the vocabulary can be sampled, at `ppo.temperature`. Top-k or top-p would change the policy, and the KL would
    then be the KL of the changed policy.
    """
    blocks = blocks or settings.minibatches
    own, device = own_rows(len(prompts), blocks).tolist(), actors.policy.device
    sampled: list[tuple[list[int], bool]] = []
    if own:  # there may be fewer prompts than ranks, except where the models are sharded
        with precision(settings.dtype, device):
            asked = [prompts[row] for row in own]
            batch = respond(actors.policy, asked, noise[own], actors.eos, actors.pad, settings.temperature)
            step_along(actors.policy)
        if size() == 1:
            return batch
        sampled = list(zip(batch.tokens(), batch.finished.tolist(), strict=True))
    # Every rank gets the responses of all ranks, in the order of the prompts.
    tokens, finished = zip(*whole_list(sampled, len(prompts), blocks), strict=True)
    return batch_of(prompts, tokens, actors.pad, device)._replace(finished=torch.tensor(finished, device=device))


@torch.no_grad()
def score(actors: Actors, batch: Responses, settings: PPOSettings) -> Tensor:
    """Return the raw score of each response, (B,).

    Raises:
        StageError: a score is not finite.
    """
    scores, count = [], len(batch.finished)
    for rows in own_parts(count, settings.micro_batch_size, batch.finished.device):
        with precision(settings.dtype, rows.device):
            scores.append(actors.reward.score(batch.take(rows)))
        working()
    return whole(_finite("the reward model's score", joined(scores)), count)


@torch.no_grad()
def assess(actors: Actors, batch: Responses, settings: PPOSettings, kl_coef: float) -> Experience:
    """Compute the reward, value and advantage of each token. The arguments are those of `collect`.

    Raises:
        StageError: a score, a log-probability or a value is not finite.
    """
    # 1. Score the tokens in micro-batches with the policy, the reference, the reward and the critic. Each rank scores its rows.
    device, mask = batch.sequences.device, batch.response_mask
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for rows in own_rows(len(mask), settings.minibatches).to(device).split(settings.micro_batch_size):
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
        working()
    found = {name: torch.cat(each) if name == "scores" else _padded(each, batch.length) for name, each in parts.items()}
    for name, what in (("scores", "the reward model's score"), ("log_probs", "a log-probability"), ("values", "a value")):
        _finite(what, found[name])
    every = {name: whole(each, len(mask), settings.minibatches) for name, each in found.items()}
    scores, own_log_probs, values = every["scores"], every["log_probs"], every["values"]

    # 2. The reward of each token: -kl_coef * KL at every token, and the response's reward at its last real token.
    k1 = equations.kl_k1(own_log_probs, every["reference"])
    rewards = equations.token_rewards(actors.reward.shaped(scores, batch.finished), k1, mask, kl_coef)

    # 3. Advantages by GAE, whitened over the whole batch.
    advantages, returns = equations.gae(rewards, values, mask, settings.gamma, settings.lam)
    real = mask.bool()
    return Experience(
        batch=batch,
        log_probs=own_log_probs,
        values=values,
        states=every.get("states"),
        advantages=equations.whiten(advantages, mask),
        returns=returns,
        scores=scores,
        rewards=rewards.sum(dim=1),
        kl_k1=torch.where(real, k1, 0.0).sum(dim=1),
        kl_k3=torch.where(real, equations.kl_k3(own_log_probs, every["reference"]), 0.0).sum(dim=1),
        kl_coef=kl_coef,
        entropy=equations.masked_mean(every["entropy"], mask),
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
    totals = dict.fromkeys(("policy_loss", "value_loss", "approx_kl", "clip_fraction", "grad_norm"), 0.0)
    first_ratio_error = 0.0
    optimizer_steps = settings.ppo_epochs * settings.minibatches
    for epoch in range(settings.ppo_epochs):
        # The first epoch keeps the order of the batch, whose prompts are shuffled already. Its micro-batches are then those
        # of `assess` (where they fit into a minibatch), so that the first ratios are exactly 1, also in bfloat16.
        order = np.random.default_rng((*coordinates, epoch)).permutation(settings.batch_size)
        order = order if epoch else np.arange(settings.batch_size)
        for number, minibatch in enumerate(torch.from_numpy(order).to(experience.log_probs.device).chunk(settings.minibatches)):
            sums, ratio_error = _gradients(actors, accelerator, experience, minibatch, settings)
            _refuse_infinite(dict(zip(totals, sums, strict=False)), epoch)  # here, so that the rank of the fault says so
            *shares, ratio_errors = zip(*of_each_rank([*sums, ratio_error]), strict=True)
            if epoch == number == 0:
                first_ratio_error = max(ratio_errors)
            norm = actors.clip_gradients(accelerator, settings.max_grad_norm)
            figures = dict(zip(totals, [*map(sum, shares), norm], strict=True))
            _refuse_infinite(figures, epoch)
            for name, figure in figures.items():
                totals[name] += figure / optimizer_steps
            optimizer.step()
            optimizer.zero_grad()
    return totals | {"first_ratio_error": first_ratio_error}


def _gradients(
    actors: Actors, accelerator: Accelerator, experience: Experience, minibatch: Tensor, settings: PPOSettings
) -> tuple[list[float], float]:
    """Add the gradients of one minibatch (an index of rows) to the weights that learn, one micro-batch at a time.

    Each loss is a sum over real tokens, divided by the tokens of the whole minibatch. The size of the micro-batches therefore
    changes nothing. Each rank computes its share of the rows. DDP averages the gradients of the ranks, so each is multiplied
    by their number. The policy comes first, and then the critic, so that DDP sends in one order whatever the number of
    micro-batches, and so that the memory of the policy's graph is free before the critic's is needed.

    Returns:
        policy loss, value loss, approximate KL and share of clipped tokens, each the share of this rank in the mean over real
        tokens; and the maximum of |ratio - 1|.
    """
    device = experience.log_probs.device
    log_probs, critic = actors.learners
    tokens = experience.batch.response_mask[minibatch].sum()
    sums, ratio_error = torch.zeros(4, device=device), 0.0
    share = minibatch.tensor_split(size())[rank()]
    parts = [(rows, experience.batch.take(rows)) for rows in share.split(settings.micro_batch_size)]
    for number, (rows, part) in enumerate(parts, start=1):
        with _synchronised(accelerator, log_probs, number == len(parts)):
            with precision(settings.dtype, device):
                own = log_probs(part, settings.temperature)
            old, advantages = (x[rows, : part.length] for x in (experience.log_probs, experience.advantages))
            policy = equations.policy_loss(own, old, advantages, part.response_mask, settings.clip_range)
            if number == len(parts):
                alive()  # before the ranks wait for each other
            accelerator.backward(policy.loss * size() / tokens)
        sums[[0, 2, 3]] += torch.stack([policy.loss, policy.approx_kl, policy.clipped]).detach() / tokens
        ratio_error = max(ratio_error, float(policy.ratio_error))
        working()
    for number, (rows, part) in enumerate(parts, start=1):
        read = None if experience.states is None else experience.states[rows, : part.length]
        with _synchronised(accelerator, critic, number == len(parts)):
            with precision(settings.dtype, device):
                values = actors.values(part, read)
            old, returns = (x[rows, : part.length] for x in (experience.values, experience.returns))
            value = equations.value_loss(values, old, returns, part.response_mask, settings.clip_range_value)
            if number == len(parts):
                alive()
            accelerator.backward(settings.vf_coef * value * size() / tokens)
        sums[1] += value.detach() / tokens
        working()
    return sums.tolist(), ratio_error


def _synchronised(accelerator: Accelerator, module: nn.Module, is_last: bool) -> AbstractContextManager[None]:
    """Let the ranks add their gradients after the last micro-batch only."""
    return nullcontext() if is_last else accelerator.no_sync(module)


def _refuse_infinite(figures: dict[str, float], epoch: int) -> None:
    for name, figure in figures.items():
        if not math.isfinite(figure):
            raise StageError(f"{name} is {figure} in epoch {epoch + 1}; lower ppo.learning_rate")


def _finite(name: str, tensor: Tensor) -> Tensor:
    if not torch.isfinite(tensor).all():
        raise StageError(f"{name} is not finite; lower ppo.learning_rate, or check models/sft and models/reward")
    return tensor


def _padded(parts: list[Tensor], length: int) -> Tensor:
    """Concatenate parts of different lengths, with zeros on the right: [(b, t, ...)] -> (B, length, ...)."""
    return torch.cat([pad(part, (0, 0) * (part.dim() - 2) + (0, length - part.shape[1])) for part in parts])
