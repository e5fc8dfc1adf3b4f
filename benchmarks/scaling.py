"""Measure the stage `ppo` with models of true size: seconds a step, and the peak memory of each process.

    python benchmarks/scaling.py profiles                 # gpt2-imdb, gpt2-medium-lora and qwen-lora, at their own sizes
    python benchmarks/scaling.py profiles --names gpt2-imdb --steps 3
    python benchmarks/scaling.py growth                   # 1 to 355 million parameters, in one and in two processes

The script runs stages/ppo.py as a user does, in a temporary folder. The weights are random, because speed and memory do not
depend on them, so nearly all responses have their full length. The first step is not counted. Each run prints one line of JSON.

`growth` also fits two constants on the runs of one process with 1, 10 and 82 million parameters, the speed of the products and
the seconds of a layer for each token of a rollout, and predicts the run with 355 million, which it has not seen.
"""

import argparse
import json
import shutil
import statistics
import string
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "stages"))

GPT2 = {"vocab_size": 50257, "n_positions": 1024, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 0}
MODELS: dict[str, dict[str, Any]] = {
    "openai-community/gpt2": {"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12} | GPT2,
    "openai-community/gpt2-medium": {"model_type": "gpt2", "n_layer": 24, "n_embd": 1024, "n_head": 16} | GPT2,
    "Qwen/Qwen2.5-0.5B-Instruct": {
        "model_type": "qwen2",
        "vocab_size": 151936,
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32768,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": 1,
        "pad_token_id": 0,
    },
}
PROFILES = ("gpt2-imdb", "gpt2-medium-lora", "qwen-lora")
PROMPT_TOKENS = {"gpt2-imdb": 8, "gpt2-medium-lora": 8, "qwen-lora": 64}
# Layers, width, heads and vocabulary of the models of `growth`, by their millions of parameters.
SIZES = {1: (3, 128, 4, 2048), 10: (4, 384, 6, 8192), 82: (6, 768, 12, 50257), 355: (24, 1024, 16, 50257)}
# Millions of parameters, number of processes, and whether adapters are trained in place of all weights.
RUNS = [
    *((size, processes, False) for size in (1, 10, 82) for processes in (1, 2)),
    (82, 1, True),
    (355, 1, False),
    (355, 2, True),
]
GROWTH: dict[str, Any] = {
    "batch_size": 16,
    "minibatches": 1,
    "micro_batch_size": 16,
    "ppo_epochs": 4,
    "max_new_tokens": 48,
    "dtype": "float32",
}
PROMPT = 16
LORA = {"rank": 8, "alpha": 16, "dropout": 0.0, "target": "all"}
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(dest="kind", required=True)
    profiles = kinds.add_parser("profiles", help="the profiles of large models")
    profiles.add_argument("--names", nargs="+", choices=PROFILES, default=list(PROFILES))
    profiles.add_argument("--steps", type=int, default=10, help="steps that are counted (default: %(default)s)")
    growth = kinds.add_parser("growth", help="models of growing size")
    growth.add_argument("--sizes", nargs="+", type=int, choices=SIZES, default=list(SIZES))
    growth.add_argument("--steps", type=int, default=2, help="steps that are counted (default: %(default)s)")
    asked = parser.parse_args()
    if asked.kind == "profiles":
        for name in asked.names:
            tree = yaml.safe_load((ROOT / f"profiles/{name}.yaml").read_text())
            figures = measured(MODELS[tree["base"]["model"]], tree, PROMPT_TOKENS[name], asked.steps)
            print(json.dumps({"profile": name} | figures), flush=True)
        return
    rows = list(growing(asked.sizes, asked.steps))
    known = {row["millions"]: row["s_per_step"] for row in rows if row["processes"] == 1 and not row["lora"]}
    if set(SIZES) <= set(known):
        print(json.dumps(fitted(known)))


def growing(sizes: list[int], steps: int) -> Iterator[Row]:
    """Yield the figures of each of `RUNS`."""
    tree = yaml.safe_load((ROOT / "profiles/imdb-local.yaml").read_text())
    for millions, processes, lora in RUNS:
        if millions not in sizes:
            continue
        layers, width, heads, vocabulary = SIZES[millions]
        config = GPT2 | {"model_type": "gpt2", "n_layer": layers, "n_embd": width, "n_head": heads, "vocab_size": vocabulary}
        changed = tree | {"ppo": tree["ppo"] | GROWTH | {"lora": LORA if lora else None}}
        if processes > 1:
            changed |= {"launcher": processes, "threads": max(1, (psutil.cpu_count() or 1) // processes)}
        figures = {"millions": millions, "processes": processes, "lora": lora} | measured(config, changed, PROMPT, steps)
        print(json.dumps(figures), flush=True)
        yield figures


def measured(config: Row, tree: Row, prompt: int, steps: int) -> Row:
    """Run the stage `ppo` on random weights, and return its figures.

    Args:
        config: of the model.
        tree: the settings.
        prompt: tokens of each prompt.
        steps: that are counted, after one that is not.
    """
    folder = Path(tempfile.mkdtemp())
    tree = tree | {"checkpoint_every": dict.fromkeys(tree["checkpoint_every"])}
    tree["ppo"] = tree["ppo"] | {"steps": steps + 1, "validation_every": 10**6, "validation_prompts": 2}
    try:
        parameters = prepare(folder, config, tree, prompt)
        times, peaks = watched(folder)
    finally:
        shutil.rmtree(folder)
    seconds = [after - before for before, after in pairwise(times)]
    return {
        "millions_of_parameters": round(parameters / 1e6, 1),
        "s_per_step": round(statistics.median(seconds), 2),
        "peak_gib": round(max(peaks) / 2**30, 2),
        "peak_gib_together": round(sum(peaks) / 2**30, 2),
        **{name: tree["ppo"][name] for name in ("batch_size", "micro_batch_size", "max_new_tokens", "critic")},
        "prompt_tokens": prompt,
    }


def prepare(folder: Path, config: Row, tree: Row, prompt: int) -> int:
    """Write what the stage reads to a folder, and return the number of the model's parameters."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    from rlhf_sentiment.models.adapters import REWARD, add_adapter
    from rlhf_sentiment.models.devices import quiet
    from rlhf_sentiment.models.loading import load_reward_model, save
    from rlhf_sentiment.settings.lora import Lora

    letters = string.ascii_letters
    # Each letter is a token. transformers reads Qwen's tokenizers as byte-level BPE, whatever their file says.
    tokens = Tokenizer(models.BPE({"<pad>": 0, "</s>": 1} | {letter: k for k, letter in enumerate(letters, 2)}, []))
    tokens.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="</s>", pad_token="<pad>")  # noqa: S106
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    (folder / "data/prepared").mkdir(parents=True)
    rng = np.random.default_rng(0)
    with (folder / "data/prepared/prompts.jsonl").open("w") as file:
        for k in range(tree["ppo"]["batch_size"] + 2):
            text = "".join(rng.choice(list(letters), prompt))
            file.write(json.dumps({"prompt": text, "split": "validation" if k < 2 else "train"}) + "\n")
    quiet()
    torch.manual_seed(0)
    with chdir(folder):
        settings = dict(config)
        policy = AutoModelForCausalLM.from_config(AutoConfig.for_model(settings.pop("model_type"), **settings))
        save(policy, tokenizer, "models/sft")
        parameters = policy.num_parameters()
        del policy
        reward = load_reward_model("models/sft", new_head=True)
        if tree["ppo"]["lora"] is not None:
            add_adapter(reward, Lora(**tree["ppo"]["lora"]), REWARD, "models/sft", "ppo.lora")
        save(reward, tokenizer, "models/reward")
    return int(parameters)


def watched(folder: Path) -> tuple[list[float], list[int]]:
    """Run the stage, and return the time at the end of each step, and the peak of each process that computes, in bytes."""
    table, times, peaks = folder / "runs/ppo/live.csv", list[float](), dict[int, int]()
    with (folder / "said.txt").open("wb") as said:
        running = psutil.Popen([sys.executable, str(ROOT / "stages/ppo.py")], cwd=folder, stdout=said, stderr=said)
        while running.poll() is None:
            rows = max(0, table.read_bytes().count(b"\n") - 1) if table.exists() else 0
            times += [time.perf_counter()] * (rows - len(times))
            with suppress(psutil.NoSuchProcess):
                ranks = running.children() or [running]
                for process in ranks:
                    peaks[process.pid] = max(peaks.get(process.pid, 0), peak(process.pid))
            time.sleep(0.05)
    if running.returncode:
        sys.exit((folder / "said.txt").read_text()[-2000:])
    computes = [each for each in peaks.values() if each > max(peaks.values()) / 4]  # not the launcher
    return times, computes


def peak(process: int) -> int:
    """Return the peak of a process's resident memory so far, in bytes."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def operations(millions: int) -> tuple[float, float]:
    """Return the floating-point operations of the products of a step, and the layers that a rollout computes one by one.

    A token costs 2 operations for each weight, forward, and 4 more for the gradient. A layer has 12 * width^2 weights. Rollout,
    scoring by three models, and each epoch of training compute all tokens. The vocabulary is computed for response tokens, by
    the policy and the reference.
    """
    layers, width, _, vocabulary = SIZES[millions]
    responses = GROWTH["batch_size"] * GROWTH["max_new_tokens"]
    tokens = responses + GROWTH["batch_size"] * PROMPT
    passes = 1 + 3 + 3 * GROWTH["ppo_epochs"]
    products = 2 * 12 * layers * width**2 * tokens * passes + 2 * width * vocabulary * responses * (passes - 1)
    return float(products), float(GROWTH["max_new_tokens"] * layers)


def fitted(seconds: dict[int, float]) -> Row:
    """Fit seconds = operations / speed + layers * overhead on all sizes but the largest, and predict the largest.

    The squares of relative errors are least.
    """
    *small, largest = sorted(seconds)
    table = np.array([operations(size) for size in small]) / np.array([[seconds[size]] for size in small])
    (per_operation, overhead), *_ = np.linalg.lstsq(table, np.ones(len(small)), rcond=None)
    predicted = float(np.dot(operations(largest), (per_operation, overhead)))
    return {
        "gflop_per_s": round(1e-9 / per_operation, 1),
        "ms_per_layer_and_token": round(1e3 * overhead, 3),
        "fit": {size: round(float(np.dot(operations(size), (per_operation, overhead))), 2) for size in small},
        "predicted": round(predicted, 2),
        "measured": seconds[largest],
        "predicted / measured": round(predicted / seconds[largest], 3),
    }


if __name__ == "__main__":
    main()
