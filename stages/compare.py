"""Compare the answers of every model to your prompts, and show how positive the judge finds them.

    python stages/compare.py --prompt "The film was" --prompt "The main character was" --samples 3
    python stages/compare.py --prompts prompts/everyday.txt --samples 4 --csv answers.csv

It needs the models of a finished run (`dvc repro`). It writes the file named by --csv, and nothing else.

A table shows the mean of each model with its interval over the prompts. A warning says if the prompts are too few for a claim
(fewer than 30), or unlike the texts that the models were trained on (evaluation/compare.py has the rule).
"""

from rlhf_sentiment.engine.start import one_line_errors  # isort: split

import argparse
import sys
from os.path import isdir, isfile, lexists
from pathlib import Path

from rlhf_sentiment.data.prompts import is_utf8
from rlhf_sentiment.engine.messages import Parser, shown

MOST_SAMPLES = 1000  # the limit of evaluate.samples_per_prompt


def command_line() -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = Parser(prog="python stages/compare.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--prompt",
        action="append",
        default=[],
        help="a text to continue, or a message of the user for models of dialogues; may be given several times",
    )
    parser.add_argument(
        "--prompts",
        type=Path,
        metavar="FILE",
        help="a file of prompts: .txt with one prompt per line, or .jsonl with `prompt` or `messages`",
    )
    parser.add_argument(
        "--samples", type=int, default=1, metavar="N", help="answers of each model to each prompt (default: %(default)s)"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the answers to FILE")
    parser.add_argument("--params", type=Path, default=Path("params.yaml"), metavar="FILE", help="default: %(default)s")
    arguments = parser.parse_args()
    if not 1 <= arguments.samples <= MOST_SAMPLES:
        parser.error(f"--samples: should be from 1 to {MOST_SAMPLES:,} (got {shown(arguments.samples)})")
    if arguments.csv and (not isdir(arguments.csv.parent) or (lexists(arguments.csv) and not isfile(arguments.csv))):
        parser.error(f"--csv: {arguments.csv} cannot be written; name a file in a folder that exists")
    if not (arguments.prompt or arguments.prompts):
        parser.error("needs --prompt TEXT or --prompts FILE")
    for prompt in arguments.prompt:
        if not is_utf8(prompt):
            parser.error(f"--prompt: {shown(prompt)} is not UTF-8")
    return arguments


if __name__ == "__main__":  # before torch is imported
    asked = command_line()
    from rlhf_sentiment.engine.arithmetic import pin_for_stage

    pin_for_stage(asked.params, "compare")

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from rlhf_sentiment.data.prompts import each_once, read_prompts
from rlhf_sentiment.engine.messages import visible, warn
from rlhf_sentiment.engine.params import load
from rlhf_sentiment.engine.records import Row, write_table
from rlhf_sentiment.engine.stopping import listen
from rlhf_sentiment.evaluation.compare import compare
from rlhf_sentiment.evaluation.contestants import CONTESTANTS
from rlhf_sentiment.settings.whole import Params


def main(arguments: argparse.Namespace) -> None:
    """Print the answers of every model."""
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # "?" for a letter that the terminal lacks
    console = Console()
    listen("compare")
    with one_line_errors("compare", "--samples, or generation.batch_size"):
        params = load(Params, arguments.params)
        typed = [Row(prompt=prompt) for prompt in arguments.prompt]
        prompts = each_once(typed + (read_prompts(arguments.prompts) if arguments.prompts else []))
        table, means, cautions = compare(params, prompts, arguments.samples)
        if arguments.csv:  # before printing, because a pager that closes early ends the program
            write_table(arguments.csv, table)
        for row in prompts:
            show(console, row["prompt"], table[table["prompt"] == row["prompt"]])
        if len(table) > len(CONTESTANTS):
            show_means(console, means, params.evaluate.confidence)
        sys.stdout.flush()
        for caution in cautions:
            warn("compare", caution)


def show(console: Console, prompt: str, answers: pd.DataFrame) -> None:
    """Print the answers to one prompt, model by model. The columns are as wide for every prompt."""
    table = Table(title=Text(visible(prompt), style="bold"), title_justify="left", box=box.SIMPLE_HEAD, expand=True)
    table.add_column("model", width=max(map(len, ("model", *CONTESTANTS))))
    table.add_column("P(positive)", justify="right", width=11)
    table.add_column("response", overflow="fold", ratio=1)
    for name, rows in answers.groupby("model", sort=False):
        for number, (score, response) in enumerate(zip(rows["positive"], rows["response"], strict=True)):
            table.add_row("" if number else str(name), coloured(score), Text(visible(response)))
        table.add_section()
    console.print(table)


def show_means(console: Console, means: dict[str, Row], confidence: float) -> None:
    """Print the mean P(positive) of each model, and its interval where there is one."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("model", "mean P(positive)", f"{confidence:.0%} interval", "prompts", "answers"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for name, row in means.items():
        bounds = "none" if row["ci_low"] is None else f"{row['ci_low']:.2f} to {row['ci_high']:.2f}"
        table.add_row(name, coloured(row["mean_positive"]), bounds, str(row["prompts"]), str(row["samples"]))
    console.print(table)


def coloured(score: float) -> Text:
    """Return P(positive) in green, yellow or red, if the terminal has colours."""
    return Text(f"{score:.2f}", style="green" if score > 2 / 3 else "red" if score < 1 / 3 else "yellow")


if __name__ == "__main__":
    main(asked)
