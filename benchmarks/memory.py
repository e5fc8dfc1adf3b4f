"""Compare the estimate of `python stages/ppo.py --plan` with the measured peak of the run, for five configurations.

    python benchmarks/memory.py                        # all five: about 15 minutes on two cores, and 5 GiB of memory
    python benchmarks/memory.py embedded imdb-local    # some of them

Each configuration has models with random weights, because memory does not depend on them, and prompts of random words. The plan
and the run are the commands of the stage, each in a process of its own. The run takes two steps, with the batch, the
micro-batch and the lengths of the profile. Its peak is the largest resident memory that the kernel counted for this process.

The table is in MiB. The exit status is 1 where an estimate is off by more than 20 % of the peak.
"""
# ruff: noqa: E402 (the package is found first)

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "stages"))

import yaml
from tabulate import tabulate

EOS, PAD = 0, 1
LORA = {"rank": 8, "alpha": 16, "dropout": 0.0, "target": "all"}
# Each configuration: the file of settings, changes of its section `ppo`, the sizes of GPT-2, and the fewest and most tokens of
# a prompt, which are those of the profile's prompts.
SMALL = {"vocab_size": 1024, "n_positions": 128, "n_embd": 128, "n_layer": 3, "n_head": 4}
LOCAL = {"vocab_size": 8192, "n_positions": 256, "n_embd": 384, "n_layer": 4, "n_head": 6}
DISTIL = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 6, "n_head": 12}
MEDIUM = {"vocab_size": 50257, "n_positions": 1024, "n_embd": 1024, "n_layer": 24, "n_head": 16}
CONFIGURATIONS: dict[str, tuple[str, dict[str, Any], dict[str, int], tuple[int, int]]] = {
    "embedded": ("params.yaml", {}, SMALL, (7, 12)),
    "imdb-local": ("profiles/imdb-local.yaml", {}, LOCAL, (6, 14)),
    "distilgpt2, separate critic": ("profiles/distilgpt2-imdb.yaml", {"critic": "separate"}, DISTIL, (6, 12)),
    "distilgpt2, shared critic": ("profiles/distilgpt2-imdb.yaml", {"critic": "shared"}, DISTIL, (6, 12)),
    "gpt2-medium, LoRA": ("profiles/distilgpt2-imdb.yaml", {"critic": "shared", "lora": LORA}, MEDIUM, (6, 12)),
}
LIMIT = 0.2


def write_world(folder: Path, name: str, changes: dict[str, Any]) -> None:
    """Write settings, random models and random prompts for a configuration to a folder."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel, PreTrainedTokenizerFast

    from rlhf_sentiment.models.adapters import REWARD, add_adapter
    from rlhf_sentiment.models.loading import save
    from rlhf_sentiment.settings.lora import Lora

    file, own, size, (fewest, most) = CONFIGURATIONS[name]
    params = yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))
    params |= {"arithmetic": "fast", "device": "cpu", "launcher": None, "report_to": "none"}
    params["ppo"] |= {"steps": 2, "validation_every": 2, "dtype": "float32"} | own | changes
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False), encoding="utf-8")

    words = [f"w{number}" for number in range(size["vocab_size"])]
    tokens = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token=words[EOS]))
    tokens.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tokens, eos_token=words[EOS], pad_token=words[PAD], padding_side="left"
    )
    draw = random.Random(0)  # noqa: S311 (lengths, not secrets)
    rows = [
        {"prompt": " ".join(draw.choices(words[2:], k=draw.randint(fewest, most))), "split": split}
        for split, count in (("train", 1000), ("validation", params["ppo"]["validation_prompts"] or 128))
        for _ in range(count)
    ]
    (folder / "data/prepared").mkdir(parents=True)
    (folder / "data/prepared/prompts.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")

    torch.manual_seed(0)
    config = GPT2Config(**size, bos_token_id=EOS, eos_token_id=EOS, pad_token_id=PAD, num_labels=1)
    (folder / "models").mkdir()
    os.chdir(folder)
    save(GPT2LMHeadModel(config), tokenizer, "models/sft")
    reward = GPT2ForSequenceClassification(config)
    if "lora" in own:
        add_adapter(reward, Lora.model_validate(LORA), REWARD, "models/sft", "reward.lora")
    save(reward, tokenizer, "models/reward")


def measure(name: str, changes: dict[str, Any]) -> tuple[float, float]:
    """Return the estimate of a configuration and the measured peak, in MiB."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if (child := os.fork()) == 0:  # so that this process stays small, and the measured one starts from nothing
            write_world(folder, name, changes)
            os._exit(0)
        if os.waitpid(child, 0)[1]:
            sys.exit(f"{name}: its models could not be written")
        command = [sys.executable, str(ROOT / "stages/ppo.py")]
        planned = subprocess.run([*command, "--plan"], cwd=folder, capture_output=True, text=True)  # noqa: S603 (no user's text)
        print(planned.stdout + planned.stderr, flush=True)
        found = re.search(r"the peak is ([\d,]+) MiB", planned.stdout)
        process = subprocess.Popen(command, cwd=folder)  # noqa: S603 (no user's text)
        _, status, usage = os.wait4(process.pid, 0)
        if found is None or status:
            sys.exit(f"{name}: the {'run' if status else 'plan'} failed")
        return float(found[1].replace(",", "")), usage.ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(CONFIGURATIONS)} (default: all)")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="changes of the section ppo")
    given = parser.parse_args()
    if unknown := set(given.names) - CONFIGURATIONS.keys():
        parser.error(f"no configuration is called {', '.join(sorted(unknown))}")
    changes = {key: yaml.safe_load(value) for key, _, value in (one.partition("=") for one in given.set)}
    rows = []
    for name in given.names or CONFIGURATIONS:
        estimate, peak = measure(name, changes)
        rows.append([name, f"{estimate:,.0f}", f"{peak:,.0f}", f"{estimate / peak:.2f}"])
        print(tabulate(rows, ["configuration", "estimate", "peak", "ratio"], disable_numparse=True), flush=True)
    if wrong := [row[0] for row in rows if abs(float(row[3]) - 1) > LIMIT]:
        sys.exit(f"off by more than {LIMIT:.0%}: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
