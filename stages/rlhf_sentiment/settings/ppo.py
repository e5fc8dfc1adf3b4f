"""The section `ppo`: reinforcement learning from the reward model."""

from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from ..engine.arithmetic import Products
from ..engine.params import Settings
from .counts import Count
from .lora import Lora

Positive = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(gt=0, le=0.1)]
Share = Annotated[float, Field(ge=0, le=1)]


class Prompted(Settings):
    """The settings that `prepare` reads: the number of prompts that the source must have."""

    model_config = ConfigDict(extra="ignore")

    batch_size: Annotated[int, Field(ge=2, le=65_536)]
    validation_prompts: Count


class RolloutSettings(Settings):
    """The settings of the rollouts from which KL is measured. `sample` and `evaluate` read them."""

    model_config = ConfigDict(extra="ignore")

    max_new_tokens: Annotated[int, Field(ge=1, le=131_072)]
    temperature: Annotated[float, Field(ge=1e-3, le=10)]


class PPOSettings(Products, Prompted, RolloutSettings):
    """The section `ppo`."""

    model_config = ConfigDict(extra="forbid")

    steps: Annotated[int, Field(ge=1, le=1_000_000)]
    minibatches: Annotated[int, Field(ge=1, le=65_536)]
    micro_batch_size: Annotated[int, Field(ge=1, le=65_536)]
    ppo_epochs: Annotated[int, Field(ge=1, le=100)]
    critic: Literal["separate", "shared"]
    learning_rate: Rate
    critic_learning_rate: Rate | None
    max_grad_norm: Positive
    kl_coef: Annotated[float, Field(ge=0, le=100)]
    kl_target: Positive | None
    kl_horizon: Annotated[int, Field(ge=1)]
    kl_stop: Positive | None
    gamma: Share
    lam: Share
    clip_range: Positive
    clip_range_value: Positive
    vf_coef: Annotated[float, Field(ge=0)]
    normalise_reward: bool
    missing_eos_penalty: Annotated[float, Field(ge=0)] | None
    validation_every: Annotated[int, Field(ge=1)]
    frozen_dtype: Literal["float32", "bfloat16"]
    gradient_checkpointing: bool
    lora: Lora | None

    @model_validator(mode="after")
    def _no_dropout(self) -> Self:
        if self.lora is not None and self.lora.dropout:
            raise ValueError("ppo.lora.dropout must be 0, because log-probabilities would differ from pass to pass")
        return self

    @model_validator(mode="after")
    def _frozen_models_are_separate(self) -> Self:
        if self.lora is not None and self.frozen_dtype == "bfloat16":
            raise ValueError(
                "ppo.frozen_dtype: bfloat16 does not go with ppo.lora, whose frozen trunk also computes the policy; set float32"
            )
        return self

    @model_validator(mode="after")
    def _batches_divide(self) -> Self:
        if self.batch_size % self.minibatches:
            raise ValueError(f"ppo.batch_size ({self.batch_size}) must be a multiple of ppo.minibatches ({self.minibatches})")
        minibatch = self.batch_size // self.minibatches
        if minibatch % min(self.micro_batch_size, minibatch):
            raise ValueError(
                f"the minibatch of {minibatch} responses (ppo.batch_size / ppo.minibatches) must be a multiple of "
                f"ppo.micro_batch_size ({self.micro_batch_size})"
            )
        if self.kl_target is not None and (self.kl_coef == 0 or self.kl_horizon < self.batch_size):
            raise ValueError(
                "with ppo.kl_target, ppo.kl_coef must be above 0 and ppo.kl_horizon at least ppo.batch_size; "
                "otherwise the KL coefficient would stay 0 or become negative"
            )
        return self
