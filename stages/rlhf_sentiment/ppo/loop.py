"""PPO from its first step to its last: batches of prompts, a step on each, the KL coefficient, validation, checkpoints.

A step is `collect` and `learn` (step.py). Each random number comes from the seed and from coordinates: what it is for, the
step and the row. A run that goes on from a checkpoint therefore draws the numbers that it would have drawn.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import GradientAccumulationPlugin
from transformers import PreTrainedTokenizerBase

from ..engine.errors import StageError
from ..engine.progress import progress_bar
from ..engine.records import Row
from ..engine.stopping import asked, patient
from ..models.devices import precision, random_states, set_random_states
from ..models.forward import room_of
from ..models.loading import load_policy
from ..models.tokens import encode
from ..rewards import Reward
from ..sampling.rollout import exact_kl, uniforms
from ..settings.ppo import PPOSettings
from ..training.checkpoints import Checkpoints
from .equations import adapt_kl_coef
from .step import Actors, collect, critic_of, learn

ORDER, ROLLOUT, NORMALISE, VALIDATE, SHUFFLE = range(5)  # what a random number is for


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


def make_optimizer(actors: Actors, settings: PPOSettings) -> torch.optim.Optimizer:
    """Return AdamW with the epsilon of 1909.08593 and without weight decay."""
    return torch.optim.AdamW(actors.parameters(), lr=settings.learning_rate, eps=1e-5, weight_decay=0.0, fused=True)


def make_accelerator(device: torch.device, **options: Any) -> Accelerator:
    """Return an accelerator that leaves loss and precision to step.py, whatever accelerate's environment variables say."""
    whole = GradientAccumulationPlugin(num_steps=1)  # the argument gradient_accumulation_steps yields to the environment
    return Accelerator(cpu=device.type == "cpu", gradient_accumulation_plugin=whole, mixed_precision="no", **options)


@dataclass
class LoopState:
    """Where a run of PPO stands: all that changes from step to step.

    Attributes:
        last: the step to end after. `ppo.kl_stop` can lower it.
        kl_coef: the KL coefficient of the next step.
        step: the steps that are done.
        curve: one row for each step.
        validated: one row for each measurement on validation prompts.
    """

    actors: Actors
    optimizer: torch.optim.Optimizer
    last: int
    kl_coef: float
    step: int = 0
    curve: list[Row] = field(default_factory=list)
    validated: list[Row] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write the state to state.pt in a folder."""
        plain = {name: getattr(self, name) for name in ("step", "last", "kl_coef", "curve", "validated")}
        parts = {"actors": self.actors.state(), "optimizer": self.optimizer.state_dict(), "random": random_states()}
        torch.save(plain | parts, folder / "state.pt")

    def restore(self, saved: dict[str, Any]) -> None:
        """Set all that `save` wrote."""
        self.actors.restore(saved["actors"])
        self.optimizer.load_state_dict(saved["optimizer"])
        set_random_states(saved["random"])
        self.step, self.last, self.kl_coef = saved["step"], saved["last"], saved["kl_coef"]
        self.curve, self.validated = saved["curve"], saved["validated"]


def train_policy(
    actors: Actors,
    train: list[list[int]],
    validation: list[list[int]],
    settings: PPOSettings,
    seed: int,
    accelerator: Accelerator,
    kept: Checkpoints,
) -> LoopState:
    """Train `actors.policy` and `actors.critic`, from the last checkpoint on where there is one.

    Args:
        train, validation: prompts, as token ids.

    Raises:
        StageError: a figure is not finite, naming it and the step; a checkpoint cannot be written.
        Stopped: after a checkpoint.
    """
    # 1. One integer schedule: a step is one batch of prompts, taken from shuffles of all of them.
    passes = -(-settings.steps * settings.batch_size // len(train))
    order = np.concatenate([np.random.default_rng((seed, ORDER, k)).permutation(len(train)) for k in range(passes)])

    def noise(purpose: int, step: int, count: int) -> torch.Tensor:
        return torch.stack([uniforms(settings.max_new_tokens, seed, purpose, step, row) for row in range(count)])

    def validate_at(step: int) -> Row:
        return {"step": step, **validate(actors, validation, noise(VALIDATE, 0, len(validation)), settings)}

    # 2. Start where the last checkpoint ended, or at the beginning, with rewards of mean 0 and variance 1.
    state = LoopState(actors, make_optimizer(actors, settings), last=settings.steps, kl_coef=settings.kl_coef)
    saved = kept.newest(lambda folder: torch.load(folder / "state.pt", map_location="cpu", weights_only=True))
    if saved is not None:
        state.restore(saved)
    else:
        if settings.normalise_reward:
            first = [train[k] for k in order[: 4 * settings.batch_size]]
            actors.reward.fit(collect(actors, first, noise(NORMALISE, 0, len(first)), settings, 0.0).scores)
            actors.critic.rescale(actors.reward.mean, actors.reward.std)
        state.validated.append(validate_at(0))

    # 3. Learn.
    progress = progress_bar(total=settings.steps, initial=state.step, desc="ppo", unit=" steps")
    with patient():
        while state.step < state.last and not asked():
            step, kl_coef = state.step + 1, state.kl_coef
            state.optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - (step - 1) / settings.steps)  # linearly to 0
            batch = [train[k] for k in order[(step - 1) * settings.batch_size : step * settings.batch_size]]
            try:
                experience = collect(actors, batch, noise(ROLLOUT, step, len(batch)), settings, kl_coef)
                learned = learn(actors, state.optimizer, accelerator, experience, settings, (seed, SHUFFLE, step))
            except StageError as error:
                raise StageError(f"step {step}: {error}") from None
            row = {"step": step, **experience.figures(), **learned}
            state.curve.append(row)
            state.step = step
            accelerator.log(row, step=step)
            progress.update()
            progress.set_postfix({name: f"{row[name]:.2f}" for name in ("reward", "score", "kl_penalty")})
            kl = row["kl_penalty"]
            if settings.kl_target is not None:
                state.kl_coef = adapt_kl_coef(kl_coef, kl, settings.kl_target, settings.kl_horizon, settings.batch_size)
            if settings.kl_stop is not None and kl > settings.kl_stop:
                state.last = step
                progress.write(
                    f"ppo: stops at step {step}: KL is {kl:.1f} nats per response, past ppo.kl_stop {settings.kl_stop}"
                )
            if step % settings.validation_every == 0 or step == state.last:
                state.validated.append(validate_at(step))
            if kept.due(step, state.last):
                with kept.writing(step) as folder:
                    state.save(folder)
    progress.close()
    return state


def prompts_of(
    rows: list[Row], split: str, tokenizer: PreTrainedTokenizerBase, settings: PPOSettings, actors: Actors
) -> tuple[list[list[int]], int]:
    """The prompts of a split as token ids, and how many more would leave no room for a response.

    Raises:
        StageError: there is none, one is empty, or all are too long.
    """
    prompts = [encode(tokenizer, row["prompt"]) for row in rows if row["split"] == split]
    if not prompts or not all(prompts):
        raise StageError(f"data/prepared/prompts.jsonl: {'an empty prompt' if prompts else 'no prompt'} in {split}")
    room = room_of(actors.policy) - settings.max_new_tokens
    fitting = [prompt for prompt in prompts if len(prompt) <= room]
    if not fitting:
        raise StageError(
            f"each {split} prompt and ppo.max_new_tokens {settings.max_new_tokens} are more than the model's "
            f"{room_of(actors.policy)} positions; lower ppo.max_new_tokens to {room_of(actors.policy) - min(map(len, prompts))}"
        )
    return fitting, len(prompts) - len(fitting)


def validate(actors: Actors, prompts: list[list[int]], noise: torch.Tensor, settings: PPOSettings) -> Row:
    """The mean score and the KL on validation prompts, with the same random numbers each time."""
    experience = collect(actors, prompts, noise, settings, 0.0)
    device = actors.policy.device
    with precision(settings.dtype, device):
        kl = [
            exact_kl(actors.policy, actors.reference, experience.batch.take(rows), settings.temperature)
            for rows in torch.arange(len(prompts), device=device).split(settings.micro_batch_size)
        ]
    return {"score": float(experience.scores.mean()), "kl": float(torch.cat(kl).mean())}
