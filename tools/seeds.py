"""Train several seeds with the settings of params.yaml, and measure how much the results vary.

    python tools/seeds.py 1 2 3 4 5      train the seeds, keep their results in docs/results, and write the page
    python tools/seeds.py --page         write the page again from the kept results alone

A run can be stopped or killed at any time. The same command goes on: training resumes from its last checkpoint, and a seed
that has run is restored from DVC's run cache. Each seed is also an experiment: `dvc exp apply seeds-3` brings the models of
seed 3.
"""

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from pipeline_copy import ROOT, alone, copied, run
from rlhf_sentiment.engine.errors import StageError, one_line_errors
from rlhf_sentiment.engine.messages import Parser, listed, one_line, tell
from rlhf_sentiment.engine.stopping import listen
from seed_page import write_page
from seed_results import TABLE, keep, numbers, read

NAME = "seeds"


class Trained(NamedTuple):
    """What a seed gave.

    Attributes:
        headline: the result in a line.
        restored: whether DVC's run cache had all of it, so that no stage ran.
    """

    headline: str
    restored: bool


def main() -> None:
    """Train the seeds of the command line, and write the page."""
    arguments = _arguments()
    listen(NAME)
    with one_line_errors(NAME):
        failed = [] if arguments.page else train(ROOT, arguments.seeds)
        say(f"wrote {write_page(ROOT)}")
        if failed:
            raise StageError(f"seed {listed(failed)} failed; the same command tries again")


def _arguments() -> argparse.Namespace:
    parser = Parser(prog=f"python tools/{NAME}.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="*", type=_seed, metavar="SEED", help="a whole number from 0 to 4294967295")
    parser.add_argument("--page", action="store_true", help="write the page again, without training")
    arguments = parser.parse_args()
    if arguments.page == bool(arguments.seeds):
        parser.error("name seeds, such as 1 2 3, or --page")
    return arguments


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is no seed: a whole number from 0 to 4294967295")
    return int(text)


def train(root: Path, seeds: Sequence[int]) -> list[int]:
    """Train seeds in a copy of a repository, and keep their results. Return the seeds that failed."""
    folder = root / "runs/seeds"
    with alone(NAME, folder) as lock:
        copy = copied(root, folder / "copy", lock)
        report_others(root, seeds, copy.commit)

        def train_one(seed: int) -> Trained:
            began: list[str] = []

            def begin(stage: str) -> None:
                began.append(stage)
                say(f"seed {seed}: {stage}")

            run(copy, {"seed": seed}, f"{NAME}-{seed}", folder / f"{seed}.log", begin)
            keep(root, copy.folder, seed, copy.commit)
            gain = numbers(copy.folder / "metrics")["evaluation.improvement_over_sft.mean_positive"]
            return Trained(f"RLHF - SFT = {gain:+.3f} in mean P(positive)", restored=not began)

        return each(list(dict.fromkeys(seeds)), train_one)


def each(seeds: Sequence[int], train_one: Callable[[int], Trained]) -> list[int]:
    """Train seeds one after another. A seed that fails does not stop the others.

    Args:
        seeds: the seeds.
        train_one: trains a seed, and keeps its results.

    Returns:
        The seeds that failed.
    """
    failed: list[int] = []
    spent: list[float] = []  # seconds of each seed that ran: a restored one says nothing about the others
    for number, seed in enumerate(seeds, start=1):
        say(f"seed {seed}: {number} of {len(seeds)}")
        start = time.monotonic()
        try:
            trained = train_one(seed)
        except StageError as error:
            tell(NAME, f"seed {seed} failed: {error}")
            failed.append(seed)
            continue
        took = time.monotonic() - start
        spent += [] if trained.restored else [took]
        others = len(seeds) - number
        left = f"; about {duration(mean(spent) * others)} left" if spent and others else ""
        say(f"seed {seed}: {trained.headline}; took {duration(took)}{left}")
    return failed


def report_others(root: Path, seeds: Sequence[int], commit: str) -> None:
    """Print which kept rows belong to another commit: those that will be replaced, and those that stay."""
    rows = read(root, TABLE)
    others = rows[rows["commit"] != commit] if len(rows) else rows
    for verb, kept in (("are replaced", others[others["seed"].isin(seeds)]), ("stay", others[~others["seed"].isin(seeds)])):
        if len(kept):
            commits = listed(sorted({one[:7] for one in kept["commit"]}))
            say(f"the rows of seed {listed(kept['seed'].tolist())} belong to {commits}, not to {commit[:7]}; they {verb}")


def duration(seconds: float) -> str:
    """Return a duration in words: `40 s`, `5 min` or `2 h 05 min`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def say(message: str) -> None:
    """Print a line on what happens."""
    print(one_line(f"{NAME}: {message}"), flush=True)


if __name__ == "__main__":
    main()
