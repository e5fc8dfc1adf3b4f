"""Compare: type a prompt, see every model's answers and how positive the judge finds them.

    python stages/compare.py --prompt "The film was" --samples 3

Needs the models of a finished run (`dvc repro`); writes nothing but the file named by --csv.
"""

import argparse
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlhf_sentiment.answers import answer
from rlhf_sentiment.config import Device, Seed, Settings, load
from rlhf_sentiment.judge import Judge
from rlhf_sentiment.models import load_policy, load_tokenizer, make_deterministic, quiet, resolve_device
from rlhf_sentiment.records import write_table
from rlhf_sentiment.run import one_line_errors, require
from rlhf_sentiment.settings.generation import GenerationSettings

FOLDERS = {"base": "models/base", "sft": "models/sft", "rlhf": "models/ppo"}


class Params(Settings):
    seed: Seed
    device: Device
    generation: GenerationSettings


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python stages/compare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompt", action="append", required=True, help="what to continue; may be given several times")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="answers of each model (default: %(default)s)")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the answers to FILE")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="default: %(default)s")
    arguments = parser.parse_args()
    if arguments.samples < 1:
        parser.error(f"--samples: {arguments.samples} is not at least 1")
    if arguments.csv and (arguments.csv.is_dir() or not arguments.csv.parent.is_dir()):
        parser.error(f"--csv: {arguments.csv} is no file in a folder that exists")
    prompts = list(dict.fromkeys(arguments.prompt))
    with one_line_errors("compare"):
        params = load(Params, arguments.params)
        for folder in (*FOLDERS.values(), "models/judge"):
            require(Path(folder))
        rows = answers(params, prompts, arguments.samples)
        for prompt in prompts:
            show(Console(), prompt, [row for row in rows if row["prompt"] == prompt])
        if arguments.csv:
            write_table(arguments.csv, rows)


def answers(params: Params, prompts: list[str], samples: int) -> list[dict[str, object]]:
    """Every model's answers, with the judge's P(positive)."""
    quiet()
    make_deterministic(params.seed)
    device, judge = resolve_device(params.device), Judge.load("models/judge")
    rows: list[dict[str, object]] = []
    for model_name, folder in FOLDERS.items():
        model, tokenizer = load_policy(folder, device), load_tokenizer(folder)
        for sample in range(samples):
            written = answer(model, tokenizer, prompts, params.seed, **params.generation.model_dump(), sample=sample)
            positive = judge.positive([one.response for one in written])
            for one, score in zip(written, positive, strict=True):
                rows.append(
                    {"prompt": one.prompt, "model": model_name, "sample": sample, "positive": score, "response": one.response}
                )
    return rows


def show(console: Console, prompt: str, rows: list[dict[str, object]]) -> None:
    """A table of the answers to one prompt, coloured by score where the terminal can."""
    table = Table(title=Text(prompt, style="bold"), title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("model")
    table.add_column("P(positive)", justify="right")
    table.add_column("response", overflow="fold")
    for row in rows:
        score = float(str(row["positive"]))
        colour = "green" if score > 2 / 3 else "red" if score < 1 / 3 else "yellow"
        table.add_row(str(row["model"]), Text(f"{score:.2f}", style=colour), Text(str(row["response"]).strip()))
    console.print(table)


if __name__ == "__main__":
    main()
