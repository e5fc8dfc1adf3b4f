"""The models of PPO, and the optimizer of those that learn."""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..models.adapters import CRITIC, POLICY, REWARD, Trunk, has_adapter, of_adapter
from ..models.forward import before_responses, reward_scores_and_states, states, width
from ..models.fsdp import clip_gradients, gathered, is_sharded, shard
from ..models.loading import load_policy, load_reward_model
from ..models.recomputing import recompute
from ..models.value_head import Critic
from ..rewards import Reward, reward_of_model
from ..sampling.rollout import Responses, score_tokens
from ..settings.lora import Lora
from ..settings.ppo import PPOSettings

SFT, REWARD_MODEL = "models/sft", "models/reward"  # folders
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
        trunk: what the models share where they are adapters on it.
        learners: the policy's log-probabilities and the critic, for the passes that need gradients. With several ranks, DDP
            adds the gradients of all ranks.
    """

    policy: PreTrainedModel
    critic: Critic
    reference: PreTrainedModel
    reward: Reward
    eos: int
    pad: int
    trunk: Trunk | None = None
    learners: tuple[nn.Module, nn.Module] = field(init=False)

    def __post_init__(self) -> None:
        self.learners = TokenLogProbs(self.policy), self.critic

    @property
    def is_sharded(self) -> bool:
        """Whether the ranks divide the weights."""
        return is_sharded(self.policy)

    def shard(self, device: torch.device) -> None:
        """Divide the weights of all four models among the ranks. A shared critic and the reward's head stay whole."""
        for model in (self.policy, self.reference):
            shard(model, device)
        if self.reward.model is not None:
            self.reward.model.score.to(device)
            shard(self.reward.model.base_model, device)
        if self.critic.trunk is None:
            self.critic.to(device)
        else:
            shard(self.critic, device)

    def share(self, accelerator: Accelerator) -> None:
        """Let the ranks learn together. Their weights become those of rank 0."""
        if accelerator.num_processes > 1 and not self.is_sharded:
            prepared = []
            for name, learner in zip((POLICY, CRITIC), self.learners, strict=True):
                if self.trunk is not None:
                    self.trunk.act(name)  # DDP waits for the gradient of each weight that learns now
                prepared.append(accelerator.prepare_model(learner))
            self.learners = prepared[0], prepared[1]

    def parameters(self) -> list[nn.Parameter]:
        """Return all weights that learn."""
        policy, critic = self.learning()
        return [*policy, *critic]

    def learning(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Return the weights that learn: those of the policy, and the critic's own."""
        policy = self.policy.parameters() if self.trunk is None else of_adapter(self.policy, POLICY).values()
        own = self.critic.own()
        return list(policy), [weight for name, weight in self.critic.named_parameters() if name in own]

    def recompute(self) -> None:
        """Let the models that learn keep less for their gradients, and compute it again (recomputing.py)."""
        if self.trunk is not None:
            self.trunk.recompute()
            return
        recompute(self.policy.base_model)
        if self.critic.trunk is not None:
            recompute(self.critic.trunk)

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

    def clip_gradients(self, accelerator: Accelerator, most: float) -> float:
        """Scale the gradients so that their norm is at most `most`, and return the norm before."""
        if self.is_sharded:
            return clip_gradients(self.parameters(), most)
        return float(accelerator.clip_grad_norm_(self.parameters(), most))

    def state(self) -> dict[str, Any]:
        """Return everything that a run changes: the weights that learn, and the scale of the reward.

        Where the weights are sharded, all ranks call this.
        """
        return gathered(
            {
                "policy": self.policy.state_dict(keep_vars=self.is_sharded)
                if self.trunk is None
                else of_adapter(self.policy, POLICY),
                "critic": self.critic.own(),
                "score_mean": self.reward.mean,
                "score_std": self.reward.std,
            }
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Set all that `state` returned."""
        self.policy.load_state_dict(state["policy"], strict=self.trunk is None)
        self.critic.load_state_dict(state["critic"], strict=self.critic.adapter is None)
        self.reward.mean, self.reward.std = state["score_mean"], state["score_std"]


def actors_of(
    settings: PPOSettings, tokenizer: PreTrainedTokenizerBase, device: torch.device, reward: Reward | None = None
) -> Actors:
    """Return the four models of PPO. The policy and the reference start as models/sft.

    Args:
        settings: the section `ppo`. With `lora`, the models are adapters on one trunk.
        tokenizer: of models/sft.
        device: where the models go.
        reward: None is the reward that models/reward gives.

    Raises:
        StageError: a model cannot be loaded, or `lora` does not fit it.
    """
    if settings.lora is not None:
        actors = _on_one_trunk(settings, settings.lora, tokenizer, device, reward)
    else:
        policy, is_given = load_policy(SFT, device), reward is not None
        reward = reward or reward_of_model(load_reward_model(REWARD_MODEL, device), settings.missing_eos_penalty)
        actors = Actors(
            policy=policy,
            reference=load_policy(SFT, device).requires_grad_(False),
            reward=reward,
            critic=critic_of(settings, policy, reward),
            eos=tokenizer.eos_token_id,
            pad=tokenizer.pad_token_id,
        )
        store(actors.reference, settings.frozen_dtype)
        if reward.model is not None and not is_given:  # the model of a user stays as it is
            store(reward.model, settings.frozen_dtype)
    if settings.gradient_checkpointing:
        actors.recompute()
    return actors


def store(model: PreTrainedModel, dtype: str) -> None:
    """Store the weights of a frozen model in a type, in which it then computes. The head of a reward model stays float32."""
    head = getattr(model, "score", None)
    for weight in model.parameters():
        if head is None or weight is not head.weight:
            weight.data = weight.data.to(getattr(torch, dtype))


def _on_one_trunk(
    settings: PPOSettings, lora: Lora, tokenizer: PreTrainedTokenizerBase, device: torch.device, reward: Reward | None
) -> Actors:
    """Return four models that share the trunk of models/sft. The reference is this trunk without an adapter.

    A reward model that was trained with an adapter is loaded as this adapter, and a separate critic starts as a copy of it. A
    reward model without one is loaded whole. A separate critic is then a new adapter.
    """
    trunk = Trunk(load_policy(SFT, device), SFT)
    trunk.add(POLICY, lora, "ppo.lora")
    policy, reference = trunk.policy(POLICY), trunk.policy(None)
    head = None
    if reward is None:
        if has_adapter(REWARD_MODEL, SFT):
            head = trunk.load(REWARD, REWARD_MODEL)
            model = trunk.reward_model(REWARD, head)
        else:
            model = load_reward_model(REWARD_MODEL, device)
        reward = reward_of_model(model, settings.missing_eos_penalty)
    if settings.critic == "shared":
        critic = critic_of(settings, reference, reward)
    else:
        if head is None:
            trunk.add(CRITIC, lora, "ppo.lora")
        else:
            trunk.load(CRITIC, REWARD_MODEL)
        critic = Critic(width(policy), trunk.trunk(CRITIC), CRITIC).to(device)
        if head is not None:
            with torch.no_grad():
                critic.head.weight.copy_(head)
    return Actors(policy, critic, reference, reward, tokenizer.eos_token_id, tokenizer.pad_token_id, trunk)


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
    policy, critic = actors.learning()
    groups = [
        {"params": policy, "lr": settings.learning_rate, "falls": True},
        {"params": critic, "lr": rate or settings.learning_rate, "falls": rate is None},
    ]
    return torch.optim.AdamW(groups, eps=1e-5, weight_decay=0.0, fused=True)
