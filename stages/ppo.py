"""PPO: the fine-tuned model learns to write what the reward model likes, and to stay close to what it was.

Each step: sample responses to a batch of prompts (rollout.py), work out what each token was worth, and take several
epochs of clipped PPO (learner.py, over the equations in rlhf_sentiment/ppo.py). The reference is the fine-tuned model
itself, frozen; the critic starts from the reward model, or is a head on the policy. Prompts are of the train split; the
validation curve is of validation prompts. No test prompt is read here.
"""

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from rlhf_sentiment import ppo as equations
from rlhf_sentiment.checkpoints import Checkpoints
from rlhf_sentiment.config import Device, Seed, Settings
from rlhf_sentiment.learner import Actors, collect, critic_of, learn, make_accelerator, make_optimizer, precision, take
from rlhf_sentiment.models import (
    encode,
    load_policy,
    load_reward_model,
    load_tokenizer,
    make_deterministic,
    quiet,
    random_states,
    resolve_device,
    room_of,
    save,
    set_random_states,
)
from rlhf_sentiment.records import Row, read_rows, write_metrics, write_table
from rlhf_sentiment.rollout import exact_kl, uniforms
from rlhf_sentiment.run import StageError, stage
from rlhf_sentiment.settings.checkpoints import CheckpointEvery
from rlhf_sentiment.settings.ppo import PPOSettings
from rlhf_sentiment.settings.report import ReportTo
from rlhf_sentiment.stopping import asked, patient

READS = ["models/sft", "models/reward", "data/prepared/prompts.jsonl"]
WRITES = ["models/ppo", "metrics/ppo.json", "plots/ppo.csv", "plots/ppo_validation.csv"]

# What a random number is for: the coordinate beside the seed that keeps one use apart from another.
ORDER, ROLLOUT, NORMALISE, VALIDATE, SHUFFLE = range(5)


class Params(Settings):
    seed: Seed
    device: Device
    report_to: ReportTo
    checkpoint_every: CheckpointEvery
    ppo: PPOSettings


def main(params: Params) -> str:
    quiet()
    make_deterministic(params.seed)
    settings, seed, device = params.ppo, params.seed, resolve_device(params.device)
    accelerator = make_accelerator(
        device, log_with=None if params.report_to == "none" else params.report_to, project_dir="runs"
    )
    if accelerator.num_processes > 1:
        raise StageError(f"started as {accelerator.num_processes} processes; PPO runs in one, as `python stages/ppo.py`")
    accelerator.init_trackers("ppo")

    kept = Checkpoints("ppo", params, READS, params.checkpoint_every.ppo)

    # 1. Four models. The policy and its reference start equal; the critic knows what the reward model knows, or nothing yet.
    tokenizer = load_tokenizer("models/sft")
    reward = load_reward_model("models/reward", device)
    policy = load_policy("models/sft", device)
    actors = Actors(
        policy=policy,
        reference=load_policy("models/sft", device).requires_grad_(False),
        reward=reward.requires_grad_(False),
        critic=critic_of(settings, policy, reward),
        eos=tokenizer.eos_token_id,
        pad=tokenizer.pad_token_id,
    )
    if load_tokenizer("models/reward").get_vocab() != tokenizer.get_vocab():
        raise StageError("models/reward has another tokenizer than models/sft; delete it and run `dvc repro`")

    # 2. Prompts, and one integer schedule: a step is one batch of prompts, taken from shuffles of all of them.
    rows = read_rows("data/prepared/prompts.jsonl", {"prompt": str, "split": str})
    train, too_long = prompts_of(rows, "train", tokenizer, settings, actors)
    validation, more = prompts_of(rows, "validation", tokenizer, settings, actors)
    validation = validation[: settings.validation_prompts]
    passes = -(-settings.steps * settings.batch_size // len(train))
    order = np.concatenate([np.random.default_rng((seed, ORDER, k)).permutation(len(train)) for k in range(passes)])

    def noise(purpose: int, step: int, count: int) -> torch.Tensor:
        return torch.stack([uniforms(settings.max_new_tokens, seed, purpose, step, row) for row in range(count)])

    # 3. Where it stands: at the beginning, or where the last checkpoint left it.
    optimizer = make_optimizer(actors, settings)
    at = kept.newest(lambda folder: torch.load(folder / "state.pt", map_location="cpu", weights_only=True))
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
            if settings.critic == "separate":
                actors.critic.rescale(actors.score_mean, actors.score_std)
        at = {"step": 0, "last": settings.steps, "kl_coef": settings.kl_coef, "curve": []}
        at["validated"] = [{"step": 0, **validate(actors, validation, noise(VALIDATE, 0, len(validation)), settings)}]
    curve, validated = at["curve"], at["validated"]

    # 4. Learn.
    bar = tqdm(total=settings.steps, initial=at["step"], desc="ppo", unit=" steps", disable=None)
    with patient():
        while at["step"] < at["last"] and not asked():
            step, kl_coef = at["step"] + 1, at["kl_coef"]
            optimizer.param_groups[0]["lr"] = settings.learning_rate * (1 - (step - 1) / settings.steps)  # to zero, linearly
            batch = order[(step - 1) * settings.batch_size : step * settings.batch_size]
            try:
                experience = collect(actors, [train[k] for k in batch], noise(ROLLOUT, step, len(batch)), settings, kl_coef)
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
                "explained_variance": equations.explained_variance(
                    experience.values, experience.returns, experience.batch.response_mask
                ),
                **learned,
            }
            curve.append(row)
            accelerator.log(row, step=step)
            bar.update()
            bar.set_postfix({name: f"{row[name]:.2f}" for name in ("reward", "score", "kl_penalty")})
            at["step"] = step
            if settings.kl_target is not None:
                at["kl_coef"] = equations.adapt_kl_coef(
                    kl_coef, kl, settings.kl_target, settings.kl_horizon, settings.batch_size
                )
            if settings.kl_stop is not None and kl > settings.kl_stop:
                at["last"] = step
                bar.write(f"ppo: stops at step {step}: KL is {kl:.1f} nats per response, past ppo.kl_stop {settings.kl_stop}")
            if step % settings.validation_every == 0 or step == at["last"]:
                measured = validate(actors, validation, noise(VALIDATE, 0, len(validation)), settings)
                validated.append({"step": step, **measured})
            if kept.due(step, at["last"]):
                with kept.writing(step) as folder:
                    now = {"actors": actors.state(), "optimizer": optimizer.state_dict(), "random": random_states()}
                    torch.save(at | now, folder / "state.pt")
    bar.close()
    accelerator.end_training()

    # 5. Write. The policy loads with plain `from_pretrained`; the critic lies beside it.
    save(actors.policy, tokenizer, "models/ppo", actors.critic)
    write_table("plots/ppo.csv", curve)
    write_table("plots/ppo_validation.csv", validated)
    before, after = validated[0], validated[-1]
    metrics = {
        "steps": len(curve),
        "episodes": len(curve) * settings.batch_size,
        "optimizer_steps": len(curve) * settings.ppo_epochs * settings.minibatches,
        "temperature": settings.temperature,
        "max_new_tokens": settings.max_new_tokens,
        "prompts_too_long": too_long + more,
        "score_mean": actors.score_mean,
        "score_std": actors.score_std,
        "validation_score_before": before["score"],
        "validation_score": after["score"],
        "validation_kl": after["kl"],
        **{name: curve[-1][name] for name in ("kl_penalty", "kl_k3", "entropy", "explained_variance", "first_ratio_error")},
    }
    write_metrics("metrics/ppo.json", metrics)
    kept.finish(WRITES)
    return f"validation score {before['score']:.2f} -> {after['score']:.2f} at {after['kl']:.2f} nats of KL per response"


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
    """The reward model's mean score and the KL on validation prompts, with the same random numbers each time."""
    experience = collect(actors, prompts, noise, settings, 0.0)
    device = actors.policy.device
    with precision(settings, device):
        kl = [
            exact_kl(actors.policy, actors.reference, take(experience.batch, rows), settings.temperature)
            for rows in torch.arange(len(prompts), device=device).split(settings.micro_batch_size)
        ]
    return {"score": float(experience.scores.mean()), "kl": float(torch.cat(kl).mean())}


if __name__ == "__main__":
    stage("ppo", __doc__, Params, main, READS, WRITES, lower="ppo.micro_batch_size, ppo.batch_size or ppo.max_new_tokens")
