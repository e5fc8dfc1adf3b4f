"""Sample: base, fine-tuned and RLHF model answer the same test prompts, with the same random numbers.

This is the only stage that reads test prompts. Beside each model's answers under `generation`, the RLHF model writes
untruncated ones at the rollouts' temperature: its KL from the fine-tuned model is measured on those.
"""

from rlhf_sentiment.answers import answer
from rlhf_sentiment.config import Device, Seed, Settings
from rlhf_sentiment.models import load_policy, load_tokenizer, make_deterministic, quiet, resolve_device
from rlhf_sentiment.records import read_json, read_rows, write_rows
from rlhf_sentiment.run import StageError, stage
from rlhf_sentiment.settings.generation import GenerationSettings

READS = ["models/base", "models/sft", "models/ppo", "metrics/ppo.json", "data/prepared/prompts.jsonl"]
WRITES = [
    "data/samples/base.jsonl",
    "data/samples/sft.jsonl",
    "data/samples/rlhf.jsonl",
    "data/samples/rlhf_rollout.jsonl",
]
FOLDERS = {"base": "models/base", "sft": "models/sft", "rlhf": "models/ppo"}


class Params(Settings):
    seed: Seed
    device: Device
    generation: GenerationSettings


def main(params: Params) -> str:
    quiet()
    make_deterministic(params.seed)
    device = resolve_device(params.device)
    rows = read_rows("data/prepared/prompts.jsonl", {"prompt": str, "split": str})
    prompts = [row["prompt"] for row in rows if row["split"] == "test"]
    if not prompts:
        raise StageError("data/prepared/prompts.jsonl: no prompt in test")
    rollout = read_json("metrics/ppo.json", {"temperature": float, "max_new_tokens": int})
    finished = {}
    for name, folder in FOLDERS.items():
        model, tokenizer = load_policy(folder, device), load_tokenizer(folder)
        written = {name: params.generation.model_dump()}
        if name == "rlhf":
            written["rlhf_rollout"] = written[name] | rollout | {"top_p": 1.0}
        for file, how in written.items():
            answers = answer(model, tokenizer, prompts, params.seed, **how, title=f"sample: {file}")
            write_rows(f"data/samples/{file}.jsonl", (one._asdict() for one in answers))
            finished[file] = sum(one.finished for one in answers) / len(answers)
    return f"{len(prompts)} prompts, finished: " + ", ".join(f"{name} {share:.0%}" for name, share in finished.items())


if __name__ == "__main__":
    stage("sample", __doc__, Params, main, READS, WRITES)
