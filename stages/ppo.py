"""Train the policy with PPO, to maximise the reward and to stay close to the fine-tuned model.

ppo/loop.py runs the steps. Each step samples responses to a batch of prompts (sampling/rollout.py) and computes the advantage
of each token. Then the step runs several epochs of clipped PPO (ppo/step.py, with the equations in ppo/equations.py). The
reference policy is a frozen copy of the fine-tuned model. The critic reads the states of the reward model, or trains a copy
of it. With `ppo.lora`, these models are adapters on one trunk.
PPO trains on the prompts of the train split, and measures on those of the validation split. It reads no test prompt.
"""

from rlhf_sentiment.engine.start import begin

READS = ["models/sft", "models/reward", "data/prepared/prompts.jsonl"]
WRITES = ["models/ppo", "reports/ppo.json", "metrics/ppo.json", "plots/ppo.csv", "plots/ppo_validation.csv"]

if __name__ == "__main__":
    begun = begin("ppo", __doc__, READS, WRITES, has_ranks=True, has_plan=True)

from pathlib import Path

import torch

from rlhf_sentiment.engine import tracking
from rlhf_sentiment.engine.arithmetic import Computing
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.messages import mend_of
from rlhf_sentiment.engine.ranks import is_main, shards, size
from rlhf_sentiment.engine.records import read_rows, write_metrics, write_table
from rlhf_sentiment.engine.stage import stage
from rlhf_sentiment.models.devices import quiet, set_up
from rlhf_sentiment.models.loading import load_tokenizer, save
from rlhf_sentiment.planning.forecast import PARAMS, after_shortage, refuse, tell_plan
from rlhf_sentiment.ppo.actors import actors_of
from rlhf_sentiment.ppo.loop import make_accelerator, prompts_of, train_policy
from rlhf_sentiment.settings.checkpoint_every import CheckpointEvery
from rlhf_sentiment.settings.counts import number_of
from rlhf_sentiment.settings.ppo import PPOSettings
from rlhf_sentiment.training.checkpoints import Checkpoints
from rlhf_sentiment.training.dtype import settled


class Params(Computing):
    """The settings that this stage loads."""

    checkpoint_every: CheckpointEvery
    ppo: PPOSettings


def plan(params: Params, file: Path) -> None:
    """Tell what a run will need."""
    tell_plan(params, params.ppo, file)


def main(params: Params) -> str:
    """Run the stage, and return the end of its last line."""
    quiet()
    settings, device = params.ppo, set_up(params, "ppo")
    accelerator = make_accelerator(device)
    if (rows := settings.batch_size // settings.minibatches) < size():
        raise StageError(f"a minibatch has {rows} rows for {size()} processes; raise ppo.batch_size, or lower launcher")
    if not shards():  # the plan does not know what a rank holds of divided weights
        refuse(settings, PARAMS, device)
    kept = Checkpoints("ppo", params, READS, params.checkpoint_every.ppo)

    tokenizer = load_tokenizer("models/sft")
    if load_tokenizer("models/reward").get_vocab() != tokenizer.get_vocab():
        raise StageError(f"models/reward has another tokenizer than models/sft; {mend_of('models/reward')}")
    actors = actors_of(settings, tokenizer, torch.device("cpu") if shards() else device)  # `train_policy` shards them
    settings = settled(settings, params.arithmetic, actors.policy, kept, device)

    table = read_rows("data/prepared/prompts.jsonl", {"prompt": str, "split": str})
    train, too_long = prompts_of(table, "train", tokenizer, settings, actors)
    validation, more = prompts_of(table, "validation", tokenizer, settings, actors)

    validation = validation[: number_of(settings.validation_prompts, len(validation))]
    if shards():
        refuse_unequal(settings, len(validation))
    tracking.begin()
    try:
        run = train_policy(actors, train, validation, settings, params.seed, accelerator, kept)
    except torch.cuda.OutOfMemoryError as error:
        raise StageError(after_shortage(settings, PARAMS, device)) from error
    learned = actors.state()
    if not is_main():
        return ""

    # The critic has its own file in the folder, so that the policy loads with plain `from_pretrained`.
    save(actors.policy, tokenizer, "models/ppo", learned["critic"], learned["policy"] if shards() else None)
    write_table("plots/ppo.csv", [row | {"dtype": settings.dtype} for row in run.curve])
    write_table("plots/ppo_validation.csv", run.validated)
    before, after, last = run.validated[0], run.validated[-1], run.curve[-1]
    figures = {
        "steps": run.step,
        "episodes": run.step * settings.batch_size,
        "optimizer_steps": run.step * settings.ppo_epochs * settings.minibatches,
        "temperature": settings.temperature,
        "max_new_tokens": settings.max_new_tokens,
        "prompts_too_long": too_long + more,
        "score_mean": actors.reward.mean,
        "score_std": actors.reward.std,
        "validation_score_before": before["score"],
        "validation_score": after["score"],
        "validation_kl": after["kl"],
        **{name: last[name] for name in ("kl_penalty", "kl_k3", "entropy", "explained_variance", "first_ratio_error")},
    }
    write_metrics("reports/ppo.json", figures)
    headline = ("steps", "validation_score", "validation_kl", "entropy")
    write_metrics("metrics/ppo.json", {name: figures[name] for name in headline})
    kept.finish(WRITES)
    return f"validation score {before['score']:.2f} -> {after['score']:.2f} at {after['kl']:.2f} nats of KL per response"


def refuse_unequal(settings: PPOSettings, validation: int) -> None:
    """Refuse settings with which ranks that divide the weights would not compute the same number of passes, and adapters.

    Args:
        settings: the section `ppo`.
        validation: the number of validation prompts.

    Raises:
        StageError: the message names the setting to change.
    """
    rows = settings.batch_size // settings.minibatches
    for name, count in (("ppo.batch_size / ppo.minibatches", rows), ("ppo.validation_prompts", validation)):
        if count % size():
            raise StageError(f"FSDP: {name} should be a multiple of {size()}, the number of processes (got {count})")
    if settings.lora is not None:
        raise StageError("FSDP: ppo.lora is not supported, because adapters need little memory; use docs/scaling/ddp.yaml")


if __name__ == "__main__":
    stage(begun, Params, main, lower="ppo.micro_batch_size, ppo.batch_size or ppo.max_new_tokens", plan=plan)
