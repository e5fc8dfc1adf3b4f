"""A run of PPO from its first step to its last: batches of prompts, the KL coefficient, validation, checkpoints.

A step is `collect` and then `learn` (step.py). Each random number depends on the seed, its purpose, the step and the row only.
A run that resumes from a checkpoint therefore draws the same numbers as a run that was never stopped.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, GradientAccumulationPlugin
from transformers import PreTrainedTokenizerBase

from ..engine import tracking
from ..engine.errors import StageError
from ..engine.progress import LiveTable, progress_bar
from ..engine.ranks import is_main, shards, size, steps_begin
from ..engine.records import Row
from ..engine.stopping import patient
from ..models.devices import precision, random_states, set_random_states
from ..models.exchange import joined, of_main, own_parts, stops, whole
from ..models.forward import room_of
from ..models.fsdp import gathered, scattered
from ..models.tokens import encode_prompt
from ..sampling.rollout import exact_kl, uniforms
from ..settings.ppo import PPOSettings
from ..training.checkpoints import Checkpoints
from . import equations
from .actors import Actors, make_optimizer
from .step import assess, collect, learn, sample, score

ORDER, ROLLOUT, NORMALISE, VALIDATE, SHUFFLE, FIT = range(6)  # purposes of random numbers
FIRST = 4  # batches in the first rollout, which gives the scale of the rewards


@dataclass
class LoopState:
    """Everything that changes from step to step of a PPO run.

    Attributes:
        actors: the four models.
        optimizer: of the policy and the critic.
        last: the number of the last step. `ppo.kl_stop` can lower it.
        kl_coef: the KL coefficient of the next step.
        step: the number of finished steps.
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

    def everything(self) -> dict[str, Any]:
        """Return the state, with that of the random generators. Where the weights are sharded, all ranks call this."""
        plain = {name: getattr(self, name) for name in ("step", "last", "kl_coef", "curve", "validated")}
        optimizer = gathered(self.optimizer.state_dict())
        return plain | {"actors": self.actors.state(), "optimizer": optimizer, "random": random_states()}

    def restore(self, saved: dict[str, Any]) -> None:
        """Set all that `everything` returned."""
        if not self.actors.is_sharded:  # else `started` has restored the weights
            self.actors.restore(saved["actors"])
        states = scattered(saved["optimizer"]["state"], self.actors.parameters())
        self.optimizer.load_state_dict(saved["optimizer"] | {"state": states})
        set_random_states(saved["random"])
        self.step, self.last, self.kl_coef = saved["step"], saved["last"], saved["kl_coef"]
        self.curve, self.validated = saved["curve"], saved["validated"]


def started(actors: Actors, settings: PPOSettings, saved: dict[str, Any] | None, device: torch.device) -> LoopState:
    """Return the state of a run at its start, or at the checkpoint `saved`. The weights are sharded where that is asked."""
    if shards():
        if saved is not None:
            actors.restore(saved["actors"])
        actors.shard(device)
    state = LoopState(actors, make_optimizer(actors, settings), last=settings.steps, kl_coef=settings.kl_coef)
    if saved is not None:
        state.restore(saved)
    return state


def keep(state: LoopState, kept: Checkpoints) -> None:
    """Write a checkpoint where one is due. All ranks call this, and rank 0 writes."""
    if of_main(lambda: kept.due(state.step, state.last)):
        everything = state.everything()
        if is_main():
            with kept.writing(state.step) as folder:
                write_state(everything, folder)


def write_state(everything: dict[str, Any], folder: Path) -> None:
    """Write what `LoopState.everything` returned to a folder."""
    torch.save(everything, folder / "state.pt")


def read_state(folder: Path) -> dict[str, Any]:
    """Read what `write_state` wrote. Nothing in the file can run code."""
    return torch.load(folder / "state.pt", map_location="cpu", weights_only=True)


def train_policy(
    actors: Actors,
    train: list[list[int]],
    validation: list[list[int]],
    settings: PPOSettings,
    seed: int,
    accelerator: Accelerator,
    kept: Checkpoints,
) -> LoopState:
    """Train `actors.policy` and `actors.critic`, from the last checkpoint where there is one.

    Args:
        train, validation: prompts, as token ids.

    Raises:
        StageError: a figure is not finite (the message names figure and step); a checkpoint cannot be written.
        Stopped: a signal came. The checkpoint is written first.
    """
    order = order_of_prompts(len(train), settings, seed)

    def noise(purpose: int, step: int, count: int) -> torch.Tensor:
        return torch.stack([uniforms(settings.max_new_tokens, seed, purpose, step, row) for row in range(count)])

    def validate_at(step: int) -> Row:
        measured = validate(actors, validation, noise(VALIDATE, 0, len(validation)), settings)
        return reported("validation", {"step": step, **measured})

    # Without a checkpoint, the run begins, and measures once.
    saved = kept.newest(read_state)
    state = started(actors, settings, saved, accelerator.device)
    if saved is None:
        first = [train[k] for k in order[: FIRST * settings.batch_size]]
        if actors.is_sharded:  # each rank has the same number of rows
            del first[len(first) - len(first) % size() :]
        begin(actors, first, noise(NORMALISE, 0, len(first)), settings, (seed, FIT))
        state.validated.append(validate_at(0))
    actors.share(accelerator)

    live = LiveTable(kept.stage, state.curve)
    steps_begin()
    stopping = stops()
    with patient(), progress_bar(total=settings.steps, initial=state.step, desc="ppo", unit=" steps") as progress:
        while state.step < state.last and not stopping:
            step = state.step + 1
            batch = [train[k] for k in order[(step - 1) * settings.batch_size : step * settings.batch_size]]
            row = take_step(state, batch, noise(ROLLOUT, step, len(batch)), settings, seed, accelerator)
            live.add(row)
            named = {"reward": "reward", "score": "score", "KL": "kl_penalty"}
            progress.set_postfix({name: f"{row[key]:.2f}" for name, key in named.items()}, refresh=False)
            progress.update()
            if settings.kl_stop is not None and row["kl_penalty"] > settings.kl_stop:
                state.last = step
                why = f"KL is {row['kl_penalty']:.1f} nats per response, more than ppo.kl_stop {settings.kl_stop}"
                progress.write(f"ppo: stops at step {step}: {why}")
            if step % settings.validation_every == 0 or step == state.last:
                state.validated.append(validate_at(step))
            stopping = stops()  # before `due`, so that the checkpoint of a stop is not missed
            keep(state, kept)
    return state


def order_of_prompts(count: int, settings: PPOSettings, seed: int) -> np.ndarray:
    """Return the numbers of the prompts that the steps take one after another: shuffles of all `count` prompts in turn."""
    passes = -(-settings.steps * settings.batch_size // count)
    return np.concatenate([np.random.default_rng((seed, ORDER, k)).permutation(count) for k in range(passes)])


def begin(
    actors: Actors, prompts: list[list[int]], noise: torch.Tensor, settings: PPOSettings, coordinates: tuple[int, ...]
) -> None:
    """Scale the rewards of the first responses to mean 0 and variance 1, and let the critic predict them.

    A separate critic predicts scores already, so that only their scale changes. A shared critic learns from these responses.

    Args:
        prompts: as token ids. [B]
        noise: one uniform random number for each token. (B, T)
        coordinates: decide what the critic learns from first.
    """
    if actors.critic.trunk is not None:
        if settings.normalise_reward:
            actors.reward.fit(score(actors, sample(actors, prompts, noise, settings), settings))
            actors.critic.rescale(actors.reward.mean, actors.reward.std)
        return
    batch = sample(actors, prompts, noise, settings)
    experience = assess(actors, batch, settings, kl_coef=0.0)
    if settings.normalise_reward:
        actors.reward.fit(experience.scores)
    # The return of each state is the discounted reward. There is no KL yet, and lambda is 1.
    mask, nothing = batch.response_mask, torch.zeros_like(experience.values)
    rewards = equations.token_rewards(actors.reward.shaped(experience.scores, batch.finished), nothing, mask, kl_coef=0.0)
    _, returns = equations.gae(rewards, nothing, mask, settings.gamma, lam=1.0)
    if experience.states is not None:
        actors.critic.fit(experience.states[mask.bool()], returns[mask.bool()], coordinates)


def take_step(
    state: LoopState,
    batch: list[list[int]],
    noise: torch.Tensor,
    settings: PPOSettings,
    seed: int,
    accelerator: Accelerator,
) -> Row:
    """Take one step of PPO on a batch of prompts, move `state` to the next step, and return the figures of this step.

    The learning rate falls linearly to 0. With `ppo.kl_target`, the KL of the step decides the next KL coefficient.

    Args:
        batch: prompts, as token ids. [B]
        noise: one uniform random number for each token. (B, T)

    Raises:
        StageError: a figure is not finite. The message names figure and step.
    """
    step = state.step + 1
    for group in state.optimizer.param_groups:
        if group["falls"]:
            group["lr"] = settings.learning_rate * (1 - (step - 1) / settings.steps)
    try:
        experience = collect(state.actors, batch, noise, settings, state.kl_coef)
        learned = learn(state.actors, state.optimizer, accelerator, experience, settings, (seed, SHUFFLE, step))
    except StageError as error:
        raise StageError(f"step {step}: {error}") from None
    row = reported("train", {"step": step, **experience.figures(), **learned})
    state.curve.append(row)
    state.step = step
    if settings.kl_target is not None:
        kl, horizon = row["kl_penalty"], settings.kl_horizon
        state.kl_coef = equations.adapt_kl_coef(state.kl_coef, kl, settings.kl_target, horizon, settings.batch_size)
    return row


def reported(kind: str, row: Row) -> Row:
    """Report the figures of a step to the trackers, and return them."""
    tracking.log({f"{kind}/{name}": value for name, value in row.items() if name != "step"}, row["step"])
    return row


def make_accelerator(device: torch.device) -> Accelerator:
    """Return an accelerator that changes neither losses nor precision, whatever accelerate's environment variables say."""
    once = GradientAccumulationPlugin(num_steps=1)  # the environment overrides the argument gradient_accumulation_steps
    # A model's buffers do not change. DDP would send them before each pass, and the ranks have unequal numbers of passes.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False)
    return Accelerator(cpu=device.type == "cpu", gradient_accumulation_plugin=once, mixed_precision="no", kwargs_handlers=[ddp])


def prompts_of(
    rows: list[Row], split: str, tokenizer: PreTrainedTokenizerBase, settings: PPOSettings, actors: Actors
) -> tuple[list[list[int]], int]:
    """Return the prompts of a split as token ids, and the number of prompts that leave no room for a response.

    Raises:
        StageError: the split has no prompt, or an empty one, or only prompts that are too long; the chat template of the
            tokenizer refuses the messages of one.
    """
    source = "data/prepared/prompts.jsonl"
    numbered = [(number, row) for number, row in enumerate(rows, start=1) if row["split"] == split]
    prompts = [encode_prompt(tokenizer, row, f"{source}, row {number}") for number, row in numbered]
    if not prompts or not all(prompts):
        raise StageError(f"{source}: {'an empty prompt' if prompts else 'no prompt'} in {split}")
    room = room_of(actors.policy) - settings.max_new_tokens
    fitting = [prompt for prompt in prompts if len(prompt) <= room]
    if not fitting:
        raise StageError(
            f"each {split} prompt with ppo.max_new_tokens {settings.max_new_tokens} needs more than the model's "
            f"{room_of(actors.policy)} positions; lower ppo.max_new_tokens to {room_of(actors.policy) - min(map(len, prompts))}"
        )
    return fitting, len(prompts) - len(fitting)


def validate(actors: Actors, prompts: list[list[int]], noise: torch.Tensor, settings: PPOSettings) -> Row:
    """Return the mean score and the mean KL (nats per response) on validation prompts, with the same noise each time."""
    batch, device = sample(actors, prompts, noise, settings, blocks=1), actors.policy.device
    with precision(settings.dtype, device):
        kl = [
            exact_kl(actors.policy, actors.reference, batch.take(rows), settings.temperature)
            for rows in own_parts(len(prompts), settings.micro_batch_size, device)
        ]
    kls = whole(joined(kl), len(prompts))
    return {"score": float(score(actors, batch, settings).mean()), "kl": float(kls.mean())}
