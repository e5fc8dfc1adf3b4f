"""Sample the answers of a contestant, with random numbers that depend on no other contestant.

The prompts are those of `evaluate.split` or `evaluate.prompts_file`. No other stage reads the test prompts. The answers are
sampled with the settings of `generation`. A contestant other than the reference also writes rollouts, which are not truncated
and have PPO's temperature. Its KL from the reference is measured on its rollouts.
"""

from rlhf_sentiment.engine.start import begin  # isort: split

from rlhf_sentiment.evaluation.contestants import CONTESTANTS

# Of each contestant, by its name.
READS = {name: [one.folder, "data/prepared/prompts.jsonl", "data/hashes/sample.json"] for name, one in CONTESTANTS.items()}
WRITES = {name: [one.answers, *([one.rollouts] if one.rollouts else []), one.counts] for name, one in CONTESTANTS.items()}

if __name__ == "__main__":
    begun = begin("sample", __doc__, READS, WRITES, has_ranks=True)

from rlhf_sentiment.data.prompts import as_prepared, read_prompts
from rlhf_sentiment.engine.arithmetic import Computing
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.ranks import is_main
from rlhf_sentiment.engine.records import Row, read_rows, write_metrics, write_rows
from rlhf_sentiment.engine.stage import stage
from rlhf_sentiment.models.devices import quiet, set_up
from rlhf_sentiment.models.forward import room_of
from rlhf_sentiment.models.loading import load_policy, load_tokenizer
from rlhf_sentiment.models.tokens import encode_prompt
from rlhf_sentiment.sampling.answers import answer
from rlhf_sentiment.settings.counts import number_of
from rlhf_sentiment.settings.evaluate import Questions
from rlhf_sentiment.settings.generation import GenerationSettings
from rlhf_sentiment.settings.ppo import RolloutSettings
from rlhf_sentiment.training.checkpoints import forget_recorded


class Params(Computing):
    """The settings that the stage reads."""

    ppo: RolloutSettings
    generation: GenerationSettings
    evaluate: Questions


def main(params: Params, name: str) -> str:
    """Let one contestant answer the prompts."""
    quiet()
    if is_main():
        forget_recorded()  # PPO's checkpoints, once DVC has recorded its outs
    contestant, device, asked = CONTESTANTS[name], set_up(params, "sample"), params.evaluate
    model, tokenizer = load_policy(contestant.folder, device), load_tokenizer(contestant.folder)

    # A prompt must leave positions for a response. All contestants have one tokenizer and the same number of positions, so
    # they answer the same prompts.
    given, source = prompts_of(asked)
    room = room_of(model) - max(params.generation.max_new_tokens, params.ppo.max_new_tokens)
    fitting = [row for where, row in given.items() if len(encode_prompt(tokenizer, row, where)) <= room]
    prompts = fitting[: max(number_of(asked.num_samples, len(given)), 2)]
    if len(prompts) < 2:
        raise StageError(
            f"{source}: only {len(prompts)} of {len(given)} prompts leave "
            "enough positions for max_new_tokens, but paired statistics need two; add short prompts, or lower "
            "generation.max_new_tokens"
        )

    usual = params.generation.model_dump() | {"samples": asked.samples_per_prompt}
    rollout = usual | params.ppo.model_dump() | {"top_p": 1.0, "samples": 1}
    finished = []
    for file, how in ((contestant.answers, usual), (contestant.rollouts, rollout)):
        if file is not None:
            answers = answer(model, tokenizer, prompts, params.seed, **how, title=f"sample@{name}")
            if is_main():
                write_rows(file, (one.row() for one in answers))
            finished.append(sum(one.finished for one in answers) / len(answers))
    if not is_main():
        return ""
    write_metrics(contestant.counts, {"prompts": len(prompts), "prompts_too_long": len(given) - len(fitting)})
    each = f"{len(prompts)} prompts" + (f" x {asked.samples_per_prompt}" if asked.samples_per_prompt > 1 else "")
    rollouts = f" and {finished[1]:.0%} of the rollouts" if finished[1:] else ""
    return f"{each}; {finished[0]:.0%} of the answers{rollouts} end with EOS"


def prompts_of(asked: Questions) -> tuple[dict[str, Row], str]:
    """Return the prompts of `evaluate.prompts_file`, or those of `evaluate.split` that `prepare` wrote, and their file.

    The key of a prompt is its place, for messages.
    """
    prepared = "data/prepared/prompts.jsonl"
    rows = read_rows(prepared, {"prompt": str, "split": str})
    if asked.prompts_file:
        given = as_prepared(read_prompts(asked.prompts_file), rows)
        return {f"{asked.prompts_file}, prompt {number}": row for number, row in enumerate(given, start=1)}, asked.prompts_file
    prompts = {f"{prepared}, row {number}": row for number, row in enumerate(rows, start=1) if row["split"] == asked.split}
    if not prompts:
        raise StageError(f"{prepared}: no prompt of the split {asked.split}")
    return prompts, prepared


if __name__ == "__main__":
    stage(begun, Params, main, lower="generation.batch_size")
