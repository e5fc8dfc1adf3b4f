"""Fit how the time of data functions grows with the size of adversarial inputs.

    python benchmarks/linear.py             # all
    python benchmarks/linear.py marks votes # only these

Each case runs at its size, twice its size and four times its size. Each size has a process of its own. The time is the least
processor time of three runs. The memory is the peak during the runs minus the peak before the first run. The exponent of
time = c * size^exponent is fitted by least squares of the logarithms. The exit status is 1 if an exponent is above 1.15.
"""

import argparse
import gzip
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "stages"))

from rlhf_sentiment.data import text  # noqa: E402 (found through the line above)
from rlhf_sentiment.data.files import files_at  # noqa: E402
from rlhf_sentiment.data.formats import rows_of  # noqa: E402
from rlhf_sentiment.data.intake import Intake  # noqa: E402
from rlhf_sentiment.data.near_duplicates import near_duplicates, sketched  # noqa: E402
from rlhf_sentiment.evaluation.classifier import Judge  # noqa: E402
from rlhf_sentiment.settings.data import DataSettings  # noqa: E402

MOST = 1.15
RUNS = 3


class Case(NamedTuple):
    """One timed case: `work` runs on the input that `make` builds for a size."""

    size: int
    make: Callable[[int], object]
    work: Callable[..., object]


def boilerplate(count: int, own: int) -> tuple[list[str], list[str]]:
    """Return two lists of `count` texts. All texts share 62 words; each has `own` more words of its own."""
    shared = " ".join(f"shared{place}" for place in range(62))
    rng = random.Random(0)  # noqa: S311 (no secret)

    def one() -> str:
        return " ".join([shared, *(f"w{rng.getrandbits(40):x}" for _ in range(own))])

    return [one() for _ in range(count)], [one() for _ in range(count)]


def compare(texts: tuple[list[str], list[str]]) -> None:
    near_duplicates(sketched(texts[0]), sketched(texts[1]), 0.6)


def votes(rows: int) -> Path:
    """Write a file of `rows` pairs with several votes on each, and return its path."""
    folder = Path(tempfile.mkdtemp())
    with (folder / "votes.jsonl").open("w", encoding="utf-8") as lines:
        for row in range(rows):
            pair = {
                "prompt": f"Prompt {row}",
                "response_a": "One.",
                "response_b": "Two.",
                "preference": ["a", "b"][: 1 + row % 8],
            }
            lines.write(json.dumps(pair) + "\n")
    return folder / "votes.jsonl"


def one_line(letters: int) -> Path:
    """Write a compressed file that unpacks to one line of `letters` letters, and return its path."""
    file = Path(tempfile.mkdtemp()) / "line.jsonl.gz"
    with gzip.open(file, "wb") as lines:
        for _ in range(letters // 1_000_000):
            lines.write(b"a" * 1_000_000)
    return file


def settings() -> DataSettings:
    return DataSettings.model_validate(yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["data"])


def take_in(file: Path) -> None:
    Intake(files_at(str(file), "benchmark"), ("votes",), settings(), "benchmark", 0, 0.0)


def teach(count: int) -> None:
    rng = random.Random(0)  # noqa: S311 (no secret)
    texts = ["".join(rng.choices("导演有点无聊员特别音乐难看结局真的这个故事", k=200)) for _ in range(count)]
    Judge.train(texts, np.arange(count) % 2, 3, 2, 30.0).positive(texts)


CASES = {
    "marks": Case(100_000, lambda n: "a" + "\u0301\u0323" * (n // 2), text.normalised),
    "marks of Tibetan and kana": Case(100_000, lambda n: "\u0f73\u0344\uff9e\u0301" * (n // 4), text.normalised),
    "spaces": Case(4_000_000, lambda n: "<br" + " " * n, text.cleaned_lines),
    "line breaks": Case(2_000_000, lambda n: "<br\n\n\n\r a" * (n // 9), text.cleaned_lines),
    "one long word": Case(2_000_000, lambda n: "a" * n + " ", lambda one: text.cut_words(one, 10**6)),
    "Chinese": Case(500_000, lambda n: "导演，" * (n // 3), lambda one: (text.words(one), text.terms(one))),
    "Thai marks": Case(500_000, lambda n: "ก\u0e31\u0e48" * (n // 3), lambda one: (text.words(one), text.terms(one))),
    "n-grams": Case(1_000, lambda n: n, teach),
    "boilerplate below": Case(2_000, lambda n: boilerplate(n, 26), compare),
    "boilerplate above": Case(4_000, lambda n: boilerplate(n, 18), compare),
    "one long text": Case(200_000, lambda n: " ".join(f"w{place}" for place in range(n)), lambda one: sketched([one])),
    "votes": Case(40_000, votes, take_in),
    "one long line": Case(500_000_000, one_line, lambda file: list(rows_of(file, settings()))),
}


def measure(name: str, size: int) -> None:
    """Print the seconds and the MiB of one case at one size."""
    case = CASES[name]
    given = case.make(size)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = []
    for _ in range(RUNS):
        start = time.process_time()
        case.work(given)
        seconds.append(time.process_time() - start)
    print(json.dumps([min(seconds), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help=f"default: {', '.join(CASES)}", metavar="case")
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if unknown := set(flags.cases) - CASES.keys():
        parser.error(f"no such case: {', '.join(unknown)}")
    if flags.size:
        measure(flags.cases[0], flags.size)
        return
    print("| input | size | seconds | MiB | exponent |\n|---|---:|---:|---:|---:|")
    slow = []
    for name in flags.cases or CASES:
        sizes = [CASES[name].size * times for times in (1, 2, 4)]
        figures = []
        for size in sizes:
            command = [sys.executable, __file__, name, "--size", str(size)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 (this script)
            figures.append(json.loads(done.stdout.splitlines()[-1]))
        seconds, memory = zip(*figures, strict=True)
        exponent = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
        slow += [name] if exponent > MOST else []
        columns = (", ".join(f"{figure:.{digits}f}" for figure in row) for row, digits in ((seconds, 2), (memory, 0)))
        print(f"| {name} | {sizes[0]:,} | {' | '.join(columns)} | {exponent:.2f} |", flush=True)
    if slow:
        sys.exit(f"above {MOST}: {', '.join(slow)}")


if __name__ == "__main__":
    main()
