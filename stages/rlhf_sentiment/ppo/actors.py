"""The models of PPO, and the optimizer of those that learn."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..models.forward import before_responses, reward_scores_and_states, states, width
from ..models.loading import load_policy
from ..models.value_head import Critic
from ..rewards import Reward
from ..sampling.rollout import Responses, score_tokens
from ..settings.ppo import PPOSettings

_SHARED_RATE = 3e-3  # of a shared critic: a small network needs a larger rate than a trunk


class TokenLogProbs(nn.Module):
    """The log-probability of each response token under a policy, as a module, because DDP wraps modules."""

    def __init__(self, policy: PreTrainedModel) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, part: Responses, temperature: float) -> Tensor:
        """Return the log-probabilities in nats, (B, T)."""
        return score_tokens(self.policy, part, temperature).log_probs


@dataclass
class Actors:
    """The four models of PPO, on one device, with dropout off. Only the policy and the critic learn.

    Attributes:
        learners: the policy's log-probabilities and the critic, for the passes that need gradients. With several ranks, DDP
            adds the gradients of all ranks.
    """

    policy: PreTrainedModel
    critic: Critic
    reference: PreTrainedModel
    reward: Reward
    eos: int
    pad: int
    learners: tuple[nn.Module, nn.Module] = field(init=False)

    def __post_init__(self) -> None:
        self.learners = TokenLogProbs(self.policy), self.critic

    def share(self, accelerator: Accelerator) -> None:
        """Let the ranks learn together. Their weights become those of rank 0."""
        if accelerator.num_processes > 1:
            log_probs, critic = self.learners
            self.learners = accelerator.prepare_model(log_probs), accelerator.prepare_model(critic)

    def parameters(self) -> list[nn.Parameter]:
        """Return the weights that learn: those of the policy and the critic's own."""
        return [*self.policy.parameters(), *self.critic.parameters()]

    def score_and_states(self, part: Responses) -> tuple[Tensor, Tensor | None]:
        """Return the raw score of each response, (B,), and what a critic without a trunk reads, (B, T, D) or None."""
        if self.critic.trunk is not None:
            return self.reward.score(part), None
        sequences, mask = part.sequences, part.attention_mask
        if self.reward.model is not None:
            scores, found = reward_scores_and_states(self.reward.model, sequences, mask, part.length)
        else:
            scores = self.reward.score(part)
            found = states(self.reference.base_model, sequences, mask, before_responses(mask, part.length))
        return scores, part.spread(found)

    def values(self, part: Responses, read: Tensor | None) -> Tensor:
        """Return the critic's value V of the state before each response token, 0 on padding, (B, T).

        Args:
            part: a batch or a part of it.
            read: the hidden state before each token, for a critic without a trunk. (B, T, D)
        """
        values: Tensor = self.learners[1](part.sequences, part.attention_mask, part.length, read)
        return values

    def state(self) -> dict[str, Any]:
        """Return everything that a run changes: the weights that learn, and the scale of the reward."""
        return {
            "policy": self.policy.state_dict(),
            "critic": self.critic.state_dict(),
            "score_mean": self.reward.mean,
            "score_std": self.reward.std,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Set all that `state` returned."""
        self.policy.load_state_dict(state["policy"])
        self.critic.load_state_dict(state["critic"])
        self.reward.mean, self.reward.std = state["score_mean"], state["score_std"]


def actors_of(settings: PPOSettings, reward: Reward, tokenizer: PreTrainedTokenizerBase, device: torch.device) -> Actors:
    """Return the four models of PPO. The policy and the reference start as models/sft."""
    policy = load_policy("models/sft", device)
    return Actors(
        policy=policy,
        reference=load_policy("models/sft", device).requires_grad_(False),
        reward=reward,
        critic=critic_of(settings, policy, reward),
        eos=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
    )


def critic_of(settings: PPOSettings, policy: PreTrainedModel, reward: Reward) -> Critic:
    """Return the critic that `settings.critic` names.

    A shared critic is a head that reads states of the reward model. A separate critic has its own trunk, which starts as a
    copy of the reward model's. Where the reward comes from no model, both use the policy as it is now, the reference.
    """
    if settings.critic == "shared":
        return Critic(width(reward.model or policy)).to(policy.device)
    if reward.model is None:
        return Critic(width(policy), copy.deepcopy(policy.base_model)).to(policy.device).eval()
    return Critic.from_reward_model(copy.deepcopy(reward.model)).requires_grad_(True).eval()


def make_optimizer(actors: Actors, settings: PPOSettings) -> torch.optim.Optimizer:
    """Return AdamW with the epsilon of Ziegler et al. 2019 (1909.08593) and without weight decay.

    A group of weights has `falls`: whether its learning rate is that of the policy, which falls during the run.
    """
    rate = settings.critic_learning_rate or (_SHARED_RATE if actors.critic.trunk is None else None)
    groups = [
        {"params": list(actors.policy.parameters()), "lr": settings.learning_rate, "falls": True},
        {"params": list(actors.critic.parameters()), "lr": rate or settings.learning_rate, "falls": rate is None},
    ]
    return torch.optim.AdamW(groups, eps=1e-5, weight_decay=0.0, fused=True)
