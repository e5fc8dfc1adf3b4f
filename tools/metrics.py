"""Print the figures that matter most: those of the workspace, or their change since a commit.

    make metrics
    make metrics BASE=main

Everything comes from files of the workspace and of git, such as metrics/. So the command needs no models and no DVC cache.
"""

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "stages"))

from comparable import incomparable
from revisions import Side, at_commit, commit_of, in_workspace, not_run, used
from rlhf_sentiment.engine.errors import StageError, one_line_errors
from rlhf_sentiment.engine.messages import Parser, cut, listed, shown
from rlhf_sentiment.evaluation.contestants import COMPARISONS, CONTESTANTS, REFERENCE, TREATMENT

Figures = dict[str, float]  # such as `evaluation.rlhf.mean_positive` -> its value


class Shown(NamedTuple):
    """A figure that the command prints.

    Attributes:
        title: in the table.
        key: with the name of its file, or of one contestant.
        digits: after the point.
        bounds: the key of its interval, without `_low` and `_high`. Empty: it has none.
    """

    title: str
    key: str
    digits: int = 3
    bounds: str = ""


BASE = next(iter(CONTESTANTS))
GAINS = {pair: f"evaluation.{key}" for key, pair in COMPARISONS.items()}
GAIN, GAIN_OVER_BASE = GAINS[TREATMENT, REFERENCE], GAINS[TREATMENT, BASE]

OF_CONTESTANT = (
    Shown("mean P(positive)", "mean_positive", bounds="ci"),
    Shown("positive ratio", "positive_ratio", bounds="positive_ratio_ci"),
    Shown("positive ratio, lexicon", "lexicon_positive"),
    Shown("score of the reward model", "reward"),
    Shown("perplexity under base", "perplexity", 2),
    Shown("KL to sft (nats per response)", "kl_to_sft", 2),
    Shown("distinct bigrams", "distinct_2"),
    Shown("tokens per response", "response_tokens", 1),
)
CHANGED = (
    Shown(f"{TREATMENT} - {REFERENCE}: mean P(positive)", f"{GAIN}.mean_positive", bounds=f"{GAIN}.ci"),
    Shown(f"{TREATMENT} - {REFERENCE}: positive ratio", f"{GAIN}.positive_ratio", bounds=f"{GAIN}.positive_ratio_ci"),
    Shown(f"{TREATMENT} - {BASE}: mean P(positive)", f"{GAIN_OVER_BASE}.mean_positive", bounds=f"{GAIN_OVER_BASE}.ci"),
    *(Shown(f"{name}: mean P(positive)", f"evaluation.{name}.mean_positive") for name in (TREATMENT, REFERENCE, BASE)),
    *(Shown(f"{TREATMENT}: {one.title}", f"evaluation.{TREATMENT}.{one.key}", one.digits) for one in OF_CONTESTANT[3:]),
    Shown("accuracy of the reward model", "reward.accuracy", bounds="reward.accuracy"),
)


def finished(one: Side, name: str, advice: str) -> Side:
    """Return a revision that has figures of a finished run.

    Raises:
        StageError: it has none.
    """
    if not any(key.startswith("evaluation.") for key in one.metrics):
        raise StageError(f"{name} has no figures in metrics/evaluation.json; {advice}")
    return one


def of_workspace(now: Side) -> Iterator[str]:
    """Yield the lines for the workspace: a row for each figure, and a column for each contestant."""
    rows, figures = [], now.metrics
    for one in OF_CONTESTANT:
        values = {name: figures.get(f"evaluation.{name}.{one.key}") for name in CONTESTANTS}
        gain = figures.get(f"{GAIN}.{one.key}", difference(values[REFERENCE], values[TREATMENT]))
        cells = [number(value, one.digits) for value in values.values()]
        rows.append([one.title, *cells, f"{number(gain, one.digits, '+')} {interval(figures, f'{GAIN}.{one.bounds}')}".strip()])
    yield table(["", *CONTESTANTS, f"{TREATMENT} - {REFERENCE}"], rows)
    reward, judge = (number(figures.get(f"{stage}.accuracy"), 3) for stage in ("reward", "judge"))
    score, steps = number(figures.get("ppo.validation_score"), 2), number(figures.get("ppo.steps"), 0)
    yield f"Held-out accuracy: reward model {reward}, judge {judge}. PPO: {steps} steps, validation score {score}."
    yield f"[low, high]: {level(now)}interval of the difference, paired by prompt. It says nothing of other seeds."
    yield from stale(now)


def of_change(before: Side, now: Side, base: str) -> Iterator[str]:
    """Yield the lines for two revisions: a row for each figure, with both values and their difference."""
    rows, old, new = [], before.metrics, now.metrics
    for one in CHANGED:
        values = [number(value, one.digits) for value in (old.get(one.key), new.get(one.key))]
        values.append(number(difference(old.get(one.key), new.get(one.key)), one.digits, "+"))
        rows.append([one.title, *values, interval(new, one.bounds)])
    yield table(["", cut(base, 16), "workspace", "change", "[low, high]"], rows)
    yield f"[low, high]: {level(now)}interval of the workspace's figure (not of the change), over prompts or pairs."
    if differ := incomparable(before, now):
        yield f"Not comparable: other {listed([one.what for one in differ])}. `make review BASE={base}` says more."
    yield from stale(now)


def stale(now: Side) -> Iterator[str]:
    """Yield a line if a setting has changed since the run."""
    if names := not_run(now):
        yield f"Stale: {listed(names)} changed in params.yaml since this run. `make repro` runs it."


def difference(before: float | None, after: float | None) -> float | None:
    """Return after - before, or None if one of them is absent."""
    return None if before is None or after is None else after - before


def number(value: float | None, digits: int, sign: str = "") -> str:
    """Return a number with some digits after the point, or `-` if there is none."""
    return "-" if value is None else f"{value:{sign}.{digits}f}"


def interval(figures: Figures, bounds: str, digits: int = 3) -> str:
    """Return an interval, or nothing if there is none."""
    low, high = (figures.get(f"{bounds}_{side}") for side in ("low", "high"))
    return "" if low is None or high is None else f"[{low:.{digits}f}, {high:.{digits}f}]"


def level(now: Side) -> str:
    """Return the level of the intervals, in percent. It is empty if neither dvc.lock nor params.yaml has it."""
    value = used(now).get("evaluate.confidence")
    return f"{100 * value:g} % " if isinstance(value, float) else ""


def table(headers: list[str], rows: list[list[str]]) -> str:
    """Return a table of text, with the figures to the right."""
    sides = ["left", *["right"] * (len(headers) - 2), "left"]
    return tabulate(rows, headers, tablefmt="plain", disable_numparse=True, colalign=sides)


def main() -> None:
    """Print the table."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # so that `| head` is no error
    parser = Parser("metrics", description=__doc__)
    parser.add_argument("base", nargs="?", metavar="BASE", help="a commit, branch, tag or experiment to compare with")
    base = parser.parse_args().base
    with one_line_errors("metrics"):
        now = finished(in_workspace(), "the workspace", "run `make repro`")
        if base is None:
            lines = of_workspace(now)
        else:
            before = finished(at_commit(commit_of(base), base), shown(base), "name a commit of a finished run")
            lines = of_change(before, now, base)
        print("\n".join(lines))


if __name__ == "__main__":
    main()
