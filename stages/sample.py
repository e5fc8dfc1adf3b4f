"""Sample: base, fine-tuned and RLHF model answer the same prompts, with random numbers that depend on no other model.

The prompts are the test prompts, which no other stage reads, or those of `evaluate.prompts_file`. Beside their answers under
`generation`, the base and the RLHF model write untruncated ones at the rollouts' temperature: their KL from the fine-tuned
model is measured on those.
"""

from rlhf_sentiment.engine.start import stage  # isort: split

from rlhf_sentiment.data.prompts import read_prompts
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.params import Device, Seed, Settings
from rlhf_sentiment.engine.records import read_json, read_rows, write_metrics, write_rows
from rlhf_sentiment.evaluation.contestants import MODELS
from rlhf_sentiment.models.devices import make_deterministic, quiet, resolve_device
from rlhf_sentiment.models.forward import room_of
from rlhf_sentiment.models.loading import load_policy, load_tokenizer
from rlhf_sentiment.models.tokens import encode
from rlhf_sentiment.sampling.answers import answer
from rlhf_sentiment.settings.counts import number_of
from rlhf_sentiment.settings.evaluate import Questions
from rlhf_sentiment.settings.generation import GenerationSettings
from rlhf_sentiment.training.checkpoints import forget_recorded

READS = ["models/base", "models/sft", "models/ppo", "metrics/ppo.json", "data/prepared/prompts.jsonl", "prompts"]
WRITES = [
    "data/samples/base.jsonl",
    "data/samples/sft.jsonl",
    "data/samples/rlhf.jsonl",
    "data/samples/base_rollout.jsonl",
    "data/samples/rlhf_rollout.jsonl",
    "metrics/sample.json",
]


class Params(Settings):
    seed: Seed
    device: Device
    generation: GenerationSettings
    evaluate: Questions


def main(params: Params) -> str:
    quiet()
    forget_recorded()  # PPO's checkpoints, once DVC has its outs
    make_deterministic(params.seed)
    device, asked = resolve_device(params.device), params.evaluate
    usual = params.generation.model_dump() | {"samples": asked.samples_per_prompt}
    ppo = read_json("metrics/ppo.json", {"temperature": float, "max_new_tokens": int})
    rollout = usual | {"temperature": ppo["temperature"], "max_new_tokens": ppo["max_new_tokens"], "top_p": 1.0, "samples": 1}
    given = read_prompts(asked.prompts_file) if asked.prompts_file else test_prompts()
    fitting = that_fit(given, max(usual["max_new_tokens"], rollout["max_new_tokens"]))
    prompts = fitting[: max(number_of(asked.num_samples, len(given)), 2)]
    if len(prompts) < 2:
        raise StageError(
            f"{asked.prompts_file or 'data/prepared/prompts.jsonl'}: {len(prompts)} of {len(given)} prompts leave the model "
            "room for max_new_tokens, and one says nothing of others; give two, or lower generation.max_new_tokens"
        )
    finished = {}
    for name, folder in MODELS.items():
        model, tokenizer = load_policy(folder, device), load_tokenizer(folder)
        for file, how in {name: usual, f"{name}_rollout": rollout}.items():
            if file == "sft_rollout":  # its KL from itself is 0
                continue
            answers = answer(model, tokenizer, prompts, params.seed, **how, title=f"sample: {file}")
            write_rows(f"data/samples/{file}.jsonl", (one._asdict() for one in answers))
            finished[file] = sum(one.finished for one in answers) / len(answers)
    write_metrics("metrics/sample.json", {"prompts": len(prompts), "prompts_too_long": len(given) - len(fitting)})
    each = f"{len(prompts)} prompts" + (f" x {asked.samples_per_prompt}" if asked.samples_per_prompt > 1 else "")
    return f"{each}, finished: " + ", ".join(f"{name} {share:.0%}" for name, share in finished.items())


def that_fit(prompts: list[str], max_new_tokens: int) -> list[str]:
    """Those prompts that leave the models, which have one tokenizer and as many positions, room for a response."""
    tokenizer, room = load_tokenizer("models/sft"), room_of(load_policy("models/sft")) - max_new_tokens
    return [prompt for prompt in prompts if len(encode(tokenizer, prompt)) <= room]


def test_prompts() -> list[str]:
    """The test prompts that `prepare` wrote."""
    rows = read_rows("data/prepared/prompts.jsonl", {"prompt": str, "split": str})
    prompts = [row["prompt"] for row in rows if row["split"] == "test"]
    if not prompts:
        raise StageError("data/prepared/prompts.jsonl: no prompt in test")
    return prompts


if __name__ == "__main__":
    stage("sample", __doc__, Params, main, READS, WRITES, lower="generation.batch_size")
