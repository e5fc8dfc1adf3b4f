"""PPO from its first step to its last: prompts in batches, a step on each, the KL's price, validation, checkpoints.

A step is collect and learn (learner.py). What a random number is for is a coordinate beside the seed, so that a run that
goes on from a checkpoint draws what it would have drawn.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from . import ppo
from .checkpoints import Checkpoints
from .forward import room_of
from .learner import Actors, collect, critic_of, learn, make_optimizer, precision, take
from .models import load_policy, random_states, set_random_states
from .progress import progress_bar
from .records import Row
from .rollout import Responses, exact_kl, uniforms
from .run import StageError
from .settings.ppo import PPOSettings
from .stopping import asked, patient
from .tokens import encode

ORDER, ROLLOUT, NORMALISE, VALIDATE, SHUFFLE = range(5)


class Curves(NamedTuple):
    """What a run of PPO was like: a row a step, and a row a measurement on validation prompts."""

    steps: list[Row]
    validation: list[Row]


def actors_of(
    settings: PPOSettings,
    reward: PreTrainedModel | Callable[[Responses], Tensor],
    tokenizer: PreTrainedTokenizerBase,
    device: torch.device,
) -> Actors:
    """Four models: policy and reference start as models/sft, the critic knows what the reward model knows, or nothing yet."""
    policy = load_policy("models/sft", device)
    model = reward if isinstance(reward, PreTrainedModel) else None
    return Actors(
        policy=policy,
        reference=load_policy("models/sft", device).requires_grad_(False),
        reward=reward if model is None else model.requires_grad_(False),
        critic=critic_of(settings, policy, model),
        eos=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
    )


def train_policy(
    actors: Actors,
    train: list[list[int]],
    validation: list[list[int]],
    settings: PPOSettings,
    seed: int,
    accelerator: Accelerator,
    kept: Checkpoints,
) -> Curves:
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

    def measured() -> Row:
        return validate(actors, validation, noise(VALIDATE, 0, len(validation)), settings)

    # 2. Where it stands: at the beginning, or where the last checkpoint left it.
    optimizer = make_optimizer(actors, settings)
    at: Any = kept.newest(lambda folder: torch.load(folder / "state.pt", map_location="cpu", weights_only=True))
    if at is not None:
        actors.restore(at.pop("actors"))
        optimizer.load_state_dict(at.pop("optimizer"))
        set_random_states(at.pop("random"))
    else:
        # Scale the reward so that the reference's own responses have mean 0 and variance 1 (1909.08593, section 2).
        if settings.normalise_reward:
            first = [train[k] for k in order[: 4 * settings.batch_size]]
            scores = collect(actors, first, noise(NORMALISE, 0, len(first)), settings, 0.0).scores
            actors.score_mean, actors.score_std = float(scores.mean()), max(float(scores.std()), 1e-6)
            actors.critic.rescale(actors.score_mean, actors.score_std)
        at = {"step": 0, "last": settings.steps, "kl_coef": settings.kl_coef, "curve": []}
        at["validated"] = [{"step": 0, **measured()}]

    # 3. Learn.
    progress = progress_bar(total=settings.steps, initial=at["step"], desc="ppo", unit=" steps")
    with patient():
        while at["step"] < at["last"] and not asked():
            step, kl_coef = at["step"] + 1, at["kl_coef"]
            optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - (step - 1) / settings.steps)  # to zero, linearly
            batch = [train[k] for k in order[(step - 1) * settings.batch_size : step * settings.batch_size]]
            try:
                experience = collect(actors, batch, noise(ROLLOUT, step, len(batch)), settings, kl_coef)
                learned = learn(actors, optimizer, accelerator, experience, settings, (seed, SHUFFLE, step))
            except StageError as error:
                raise StageError(f"step {step}: {error}") from None
            kl = float(experience.kl_k1.mean())
            row = {
                "step": step,
                "score": float(experience.scores.mean()),
                "reward": float(experience.rewards.mean()),
                "kl_penalty": kl,
                "kl_k3": float(experience.kl_k3.mean()),
                "kl_coef": kl_coef,
                "entropy": float(experience.entropy),
                "response_tokens": float(experience.batch.response_mask.sum(dim=1).float().mean()),
                "finished": float(experience.batch.finished.float().mean()),
                "explained_variance": ppo.explained_variance(
                    experience.values, experience.returns, experience.batch.response_mask
                ),
                **learned,
            }
            at["curve"].append(row)
            at["step"] = step
            accelerator.log(row, step=step)
            progress.update()
            progress.set_postfix({name: f"{row[name]:.2f}" for name in ("reward", "score", "kl_penalty")})
            if settings.kl_target is not None:
                at["kl_coef"] = ppo.adapt_kl_coef(kl_coef, kl, settings.kl_target, settings.kl_horizon, settings.batch_size)
            if settings.kl_stop is not None and kl > settings.kl_stop:
                at["last"] = step
                progress.write(
                    f"ppo: stops at step {step}: KL is {kl:.1f} nats per response, past ppo.kl_stop {settings.kl_stop}"
                )
            if step % settings.validation_every == 0 or step == at["last"]:
                at["validated"].append({"step": step, **measured()})
            if kept.due(step, at["last"]):
                with kept.writing(step) as folder:
                    now = {"actors": actors.state(), "optimizer": optimizer.state_dict(), "random": random_states()}
                    torch.save(at | now, folder / "state.pt")
    progress.close()
    return Curves(at["curve"], at["validated"])


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
    with precision(settings, device):
        kl = [
            exact_kl(actors.policy, actors.reference, take(experience.batch, rows), settings.temperature)
            for rows in torch.arange(len(prompts), device=device).split(settings.micro_batch_size)
        ]
    return {"score": float(experience.scores.mean()), "kl": float(torch.cat(kl).mean())}
