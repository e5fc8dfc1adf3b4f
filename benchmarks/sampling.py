"""Compare the speed of the `sample` stage with plain `generate` over batches in file order.

    dvc repro && python benchmarks/sampling.py --prompts 500 --tokens 48

The models of the last run answer the test prompts first and then training prompts, once each, in batches of
`generation.batch_size`. Both ways sample from the whole distribution at `generation.temperature`. The last line is the result,
as JSON.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "stages"))
from rlhf_sentiment.engine.params import Device, Seed, Settings, load
from rlhf_sentiment.engine.records import read_rows
from rlhf_sentiment.engine.stage import keep_freed_memory
from rlhf_sentiment.models.devices import make_deterministic, quiet, resolve_device
from rlhf_sentiment.models.loading import load_policy, load_tokenizer
from rlhf_sentiment.sampling.answers import answer
from rlhf_sentiment.settings.generation import GenerationSettings

FOLDERS = ("models/base", "models/sft", "models/ppo")


class Params(Settings):
    seed: Seed
    device: Device
    generation: GenerationSettings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=500, help="default: %(default)s")
    parser.add_argument("--tokens", type=int, default=48, help="the longest response (default: %(default)s)")
    size = parser.parse_args()
    params = load(Params, Path("params.yaml"))
    how = params.generation.model_copy(update={"max_new_tokens": size.tokens, "top_p": 1.0})
    keep_freed_memory()
    quiet()
    make_deterministic(params.seed)
    device = resolve_device(params.device)
    rows = read_rows("data/prepared/prompts.jsonl", {"prompt": str, "split": str})
    rows.sort(key=lambda row: row["split"] != "test")
    prompts = list({row["prompt"]: row for row in rows}.values())[: size.prompts]
    seconds = {"ours": 0.0, "generate": 0.0}
    tokens = {"ours": 0, "generate": 0}
    for folder in FOLDERS:
        model, tokenizer = load_policy(folder, device), load_tokenizer(folder)
        start = time.perf_counter()
        answers = answer(model, tokenizer, prompts, params.seed, **how.model_dump(), title=folder)
        seconds["ours"] += time.perf_counter() - start
        tokens["ours"] += sum(len(one.tokens) for one in answers)
        sampling = {"do_sample": True, "top_k": 0, "temperature": how.temperature, "max_new_tokens": size.tokens}
        start = time.perf_counter()
        for first in range(0, len(prompts), how.batch_size):
            texts = [row["prompt"] for row in prompts[first : first + how.batch_size]]
            batch = tokenizer(texts, return_tensors="pt", padding=True).to(device)
            with torch.no_grad():
                written = model.generate(**batch, **sampling, pad_token_id=tokenizer.pad_token_id)
            responses = written[:, batch["input_ids"].shape[1] :]
            tokens["generate"] += int((responses != tokenizer.pad_token_id).sum())
            tokenizer.batch_decode(responses, skip_special_tokens=True)
        seconds["generate"] += time.perf_counter() - start
    figures = {"prompts": len(prompts), "models": len(FOLDERS), "tokens": size.tokens, "threads": torch.get_num_threads()}
    figures |= {f"s_{name}": round(value, 2) for name, value in seconds.items()}
    figures |= {f"tokens_per_s_{name}": round(tokens[name] / value) for name, value in seconds.items()}
    print(json.dumps(figures | {"ratio": round(seconds["generate"] / seconds["ours"], 2)}))


if __name__ == "__main__":
    main()
