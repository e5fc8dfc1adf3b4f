"""One PPO step in two halves: collect experience with the policy as it is, then learn from it.

The numbers in comments are the steps of Ziegler et al. 2019 (1909.08593) as Huang et al. 2024 (2403.17031) list them.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from . import ppo
from .forward import width
from .messages import shown
from .rollout import Responses, respond, score_tokens
from .run import StageError
from .scores import Critic, reward_scores
from .settings.ppo import PPOSettings
from .tokens import decode_response


@dataclass
class Actors:
    """The four models of PPO, on one device, dropout off. Only policy and critic learn; any function of the responses can take
    the reward model's place."""

    policy: PreTrainedModel
    critic: Critic
    reference: PreTrainedModel
    reward: PreTrainedModel | Callable[[Responses], Tensor]
    eos: int
    pad: int
    score_mean: float = 0.0
    score_std: float = 1.0

    def parameters(self) -> list[nn.Parameter]:
        """What learns: the policy's weights and the critic's own."""
        return [*self.policy.parameters(), *self.critic.parameters()]

    def values(self, part: Responses, states: Tensor) -> Tensor:
        """The critic's value of the state before each response token; it may read the policy's `states`. (B, T)"""
        if self.critic.trunk is None:
            return self.critic.value(states)
        return self.critic(part.sequences, part.attention_mask, part.length)

    def scores(self, part: Responses) -> Tensor:
        """The score of each response. (B,)"""
        if isinstance(self.reward, nn.Module):
            return reward_scores(self.reward, part.sequences, part.attention_mask)
        return self.reward(part)

    def state(self) -> dict[str, Any]:
        """What changes in a run: what learns, and the reward's scale. `restore` takes it back."""
        return {
            "policy": self.policy.state_dict(),
            "critic": self.critic.state_dict(),
            "score_mean": self.score_mean,
            "score_std": self.score_std,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Be as `state` was."""
        self.policy.load_state_dict(state["policy"])
        self.critic.load_state_dict(state["critic"])
        self.score_mean, self.score_std = state["score_mean"], state["score_std"]


def critic_of(settings: PPOSettings, policy: PreTrainedModel, reward: PreTrainedModel | None) -> Critic:
    """The critic that `settings.critic` names: on a copy of the reward model's trunk (of the policy's, where no model gives
    the reward), or a head on the policy's own."""
    if settings.critic == "shared":
        return Critic(width(policy)).to(policy.device)
    if reward is None:
        return Critic(width(policy), copy.deepcopy(policy.base_model)).to(policy.device).eval()
    return Critic.from_reward_model(copy.deepcopy(reward)).requires_grad_(True).eval()


def score_texts(
    function: Callable[[list[str], list[str]], Sequence[float]], tokenizer: PreTrainedTokenizerBase
) -> Callable[[Responses], Tensor]:
    """A reward for `Actors` from a function of prompts and responses, which are texts without special tokens.

    It is called with at most `ppo.micro_batch_size` of them at a time.

    Raises:
        StageError: what it returns is not one finite number for each response.
    """

    def score(part: Responses) -> Tensor:
        prompts = part.prompts()
        responses = [decode_response(tokenizer, *both) for both in zip(prompts, part.tokens(), strict=True)]
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
        return scores.to(part.sequences.device)

    return score


def make_optimizer(actors: Actors, settings: PPOSettings) -> torch.optim.Optimizer:
    """AdamW with the epsilon of 1909.08593 and no decay."""
    return torch.optim.AdamW(actors.parameters(), lr=settings.learning_rate, eps=1e-5, weight_decay=0.0, fused=True)


def make_accelerator(device: torch.device, **options: Any) -> Accelerator:
    """An accelerator that leaves loss and precision to this module, whatever accelerate's environment variables say."""
    whole = GradientAccumulationPlugin(num_steps=1)  # the argument gradient_accumulation_steps yields to the environment
    return Accelerator(cpu=device.type == "cpu", gradient_accumulation_plugin=whole, mixed_precision="no", **options)


@contextmanager
def precision(settings: PPOSettings, device: torch.device) -> Iterator[None]:
    """Where the matrix products run in `settings.dtype`: weights, sums, log-probabilities and losses stay float32."""
    half = settings.dtype == "bfloat16"
    with ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, torch.bfloat16, enabled=half))
        if half and device.type == "cpu":  # there the fused attention's backward is three times slower than its formula
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


class Experience(NamedTuple):
    """What a batch of B responses of at most T tokens was worth. Nothing here has a vocabulary's width.

    | field          | shape  | what                                                                  |
    |----------------|--------|-----------------------------------------------------------------------|
    | batch          |        | the responses, see `rollout.Responses`                                |
    | log_probs      | (B, T) | under the policy that sampled them                                    |
    | values         | (B, T) | of the state before each token                                        |
    | advantages     | (B, T) | whitened over the whole batch                                         |
    | returns        | (B, T) | what the critic should have said                                      |
    | scores         | (B,)   | the reward model's, as it gives them                                  |
    | rewards        | (B,)   | what PPO maximises: normalised score, less penalty, less priced KL    |
    | kl_k1, kl_k3   | (B,)   | nats per response against the reference: as charged, and never negative |
    | entropy        | ()     | mean over tokens, nats                                                |
    """

    batch: Responses
    log_probs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    scores: Tensor
    rewards: Tensor
    kl_k1: Tensor
    kl_k3: Tensor
    entropy: Tensor


def take(batch: Responses, rows: Tensor) -> Responses:
    """Some rows of a batch, without the columns that only padding fills."""
    sequences, attention, mask, finished = (field[rows] for field in batch)
    prompt_width = attention.shape[1] - mask.shape[1]
    first = int(attention.argmax(dim=1).min())  # the longest prompt starts here
    last = prompt_width + int(mask.sum(dim=1).max())
    return Responses(sequences[:, first:last], attention[:, first:last], mask[:, : last - prompt_width], finished)


def _padded(parts: list[Tensor], width: int) -> Tensor:
    """Stack parts of different widths, zeros on the right. [(b, t)] -> (B, width)"""
    return torch.cat([torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in parts])


def collect(
    actors: Actors, prompts: Sequence[Sequence[int]], noise: Tensor, settings: PPOSettings, kl_coef: float
) -> Experience:
    """Sample a response to each prompt and work out what each token was worth.

    Args:
        prompts: token ids. [B]
        noise: one uniform number for each token. (B, T)
    """
    return assess(actors, sample(actors, prompts, noise, settings), settings, kl_coef)


def sample(actors: Actors, prompts: Sequence[Sequence[int]], noise: Tensor, settings: PPOSettings) -> Responses:
    """A response to each prompt from the plain tempered distribution: no top-k, no top-p, or the KL would be of another
    policy. Arguments as in `collect`."""
    with precision(settings, actors.policy.device):
        return respond(actors.policy, prompts, noise, actors.eos, actors.pad, settings.temperature)


@torch.no_grad()
def assess(actors: Actors, batch: Responses, settings: PPOSettings, kl_coef: float) -> Experience:
    """Work out what each token of the responses was worth.

    Raises:
        StageError: a score, a log-probability or a value is not finite.
    """
    # 1. Score, by micro-batches: policy, critic, reference, reward model.
    device, mask = batch.sequences.device, batch.response_mask
    parts: dict[str, list[Tensor]] = {name: [] for name in ("log_probs", "reference", "values", "entropy", "scores")}
    for rows in torch.arange(len(mask), device=device).split(settings.micro_batch_size):
        part = take(batch, rows)
        with precision(settings, device):
            own = score_tokens(actors.policy, part, settings.temperature, with_entropy=True)
            values = actors.values(part, own.states)
            reference = score_tokens(actors.reference, part, settings.temperature)
            scores = actors.scores(part)
        parts["log_probs"].append(own.log_probs)
        parts["entropy"].append(own.entropy)
        parts["values"].append(values)
        parts["reference"].append(reference.log_probs)
        parts["scores"].append(scores)
    own_log_probs, reference_log_probs, values, entropy = (
        _padded(parts[name], batch.length) for name in ("log_probs", "reference", "values", "entropy")
    )
    scores = torch.cat(parts["scores"])

    # 2. Reward: the normalised score at the last real token, less a penalty where EOS is missing, less KL at each token.
    worth = (scores - actors.score_mean) / actors.score_std
    if settings.missing_eos_penalty is not None:
        worth = torch.where(batch.finished, worth, worth - settings.missing_eos_penalty)
    for name, tensor in {"the reward model's score": scores, "a log-probability": own_log_probs, "a value": values}.items():
        if not torch.isfinite(tensor).all():
            raise StageError(f"{name} is not finite; lower ppo.learning_rate, or look at models/sft and models/reward")
    k1 = ppo.kl_k1(own_log_probs, reference_log_probs)
    rewards = ppo.token_rewards(worth, k1, mask, kl_coef)

    # 3. Advantages, whitened over the whole batch.
    advantages, returns = ppo.gae(rewards, values, mask, settings.gamma, settings.lam)
    real = mask.bool()
    return Experience(
        batch=batch,
        log_probs=own_log_probs,
        values=values,
        advantages=ppo.whiten(advantages, mask),
        returns=returns,
        scores=scores,
        rewards=rewards.sum(dim=1),
        kl_k1=torch.where(real, k1, 0.0).sum(dim=1),
        kl_k3=torch.where(real, ppo.kl_k3(own_log_probs, reference_log_probs), 0.0).sum(dim=1),
        entropy=ppo.masked_mean(entropy, mask),
    )


def learn(
    actors: Actors,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
    experience: Experience,
    settings: PPOSettings,
    coordinates: tuple[int, ...],
) -> dict[str, float]:
    """Several epochs of clipped PPO over one batch of experience.

    A loss is the sum over the minibatch's real tokens divided by their number, however many micro-batches the sum is
    made of.

    Args:
        coordinates: seed and step, from which the shuffle of each epoch is drawn.

    Returns:
        policy_loss, value_loss, approx_kl, clip_fraction, grad_norm: means over optimizer steps; first_ratio_error:
        max |ratio - 1| of the first minibatch, 0 but for rounding.

    Raises:
        StageError: a loss or a gradient is not finite; the policy is as the last good step left it.
    """
    size = settings.batch_size // settings.minibatches
    parameters = actors.parameters()
    totals = dict.fromkeys(("policy_loss", "value_loss", "approx_kl", "clip_fraction", "grad_norm"), 0.0)
    first_ratio_error = 0.0
    optimizer_steps = settings.ppo_epochs * settings.minibatches
    device = experience.log_probs.device

    for epoch in range(settings.ppo_epochs):
        # The first epoch takes the batch as it came, prompts having been shuffled: in the micro-batches in which it was
        # scored (where they fit into a minibatch), so that its ratios are 1 to the last bit, in bfloat16 too.
        order = np.random.default_rng((*coordinates, epoch)).permutation(settings.batch_size)
        order = order if epoch else np.arange(settings.batch_size)
        for number, minibatch in enumerate(torch.from_numpy(order).to(device).split(size)):
            tokens = experience.batch.response_mask[minibatch].sum()
            sums = torch.zeros(4, device=device)
            for rows in minibatch.split(settings.micro_batch_size):
                part = take(experience.batch, rows)
                mask, width = part.response_mask, part.length
                with precision(settings, device):
                    own = score_tokens(actors.policy, part, settings.temperature)
                policy = ppo.policy_loss(
                    own.log_probs,
                    experience.log_probs[rows, :width],
                    experience.advantages[rows, :width],
                    mask,
                    settings.clip_range,
                )
                loss = policy.loss / tokens
                if actors.critic.trunk is not None:  # two graphs: the policy's is freed before the critic's is made
                    accelerator.backward(loss)
                    loss = loss.detach()
                with precision(settings, device):
                    values = actors.values(part, own.states)
                value = ppo.value_loss(
                    values, experience.values[rows, :width], experience.returns[rows, :width], mask, settings.clip_range_value
                )
                accelerator.backward(loss + settings.vf_coef * value / tokens)
                sums += torch.stack([policy.loss, value, policy.approx_kl, policy.clipped]).detach() / tokens
                if epoch == number == 0:
                    first_ratio_error = max(first_ratio_error, float(policy.ratio_error))
            norm = accelerator.clip_grad_norm_(parameters, settings.max_grad_norm)
            figures = dict(zip(totals, [*sums.tolist(), float(norm)], strict=True))
            for name, figure in figures.items():
                if not math.isfinite(figure):
                    raise StageError(f"{name} is {figure} in epoch {epoch + 1}; lower ppo.learning_rate")
                totals[name] += figure / optimizer_steps
            optimizer.step()
            optimizer.zero_grad()
    return totals | {"first_ratio_error": first_ratio_error}
