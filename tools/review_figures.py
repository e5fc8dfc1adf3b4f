"""Compare metrics between two revisions, and mark each as better, worse or within seed noise."""

import csv
import io
import math
import re
import statistics
from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from scipy import stats

from revisions import finite

BETTER, WORSE, CHANGED, NOISE, SAME = "better", "worse", "changed", "within seed noise", "same"
APART = "not comparable"
_HIGHER = {"mean_positive", "positive_ratio", "lexicon_positive", "distinct_2", "effect_size"}
_HIGHER_ELSEWHERE = {"accuracy", "accuracy_cut", "token_accuracy"}
_LOWER = {"kl_to_sft", "validation_kl", "loss"}
_INTERVAL = re.compile(r"(.*\.)(?:(ci)|(\w+_ci)|(accuracy))_(low|high)")
_CONFIDENCE = 0.95


class Seeds(NamedTuple):
    """How much the figures differ between seeds.

    Attributes:
        runs: the number of seeds that ran at the same commit.
        commit: the commit; empty if the file does not have it.
        noise: the largest difference between two seeds to expect, by metric; empty with fewer than two seeds.
        locks: the MD5 of the dvc.lock of each seed.
        caveat: a sentence on seeds that ran with other settings; empty if there is nothing to say.
    """

    runs: int
    commit: str
    noise: dict[str, float]
    locks: frozenset[str] = frozenset()
    caveat: str = ""


def seeds(text: str) -> Seeds:
    """Return the seed noise of each metric in docs/results/seeds.csv.

    The noise is t * sqrt(2) * s. s is the standard deviation over the seeds. t is the 0.975 quantile of Student's t with
    seeds - 1 degrees of freedom. Two seeds of the same settings differ by less than this in 95 % of the cases. It is the
    repeatability limit of ISO 5725-6, with t in place of 1.96, because few seeds give an uncertain s.

    Args:
        text: one row a seed, one column a metric; empty if there is no file. Where seeds ran at several commits, the commit
            with the most seeds counts.
    """
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    commit = Counter(row.get("commit") or "" for row in rows).most_common(1)[0][0] if rows else ""
    rows = [row for row in rows if (row.get("commit") or "") == commit]
    noise: dict[str, float] = {}
    for name in [name for row in rows[:1] for name in row if name and "." in name]:
        values = [number for row in rows if (number := finite(row[name])) is not None]
        if len(values) > 1:
            t = stats.t.ppf((1 + _CONFIDENCE) / 2, len(values) - 1)
            noise[name] = float(t * math.sqrt(2) * statistics.stdev(values))
    return Seeds(len(rows), commit, noise, frozenset(row.get("lock") or "" for row in rows) - {""})


class Figure(NamedTuple):
    """A metric that both revisions have.

    Attributes:
        noise: its seed noise; None if it is unknown.
        mark: `BETTER`, `WORSE`, `CHANGED` (neither is better, or seed noise is unknown), `NOISE`, `SAME` or `APART`.
    """

    name: str
    before: float
    after: float
    noise: float | None
    mark: str


def figures(
    before: dict[str, float], after: dict[str, float], noise: dict[str, float], other: Collection[str] = ()
) -> list[Figure]:
    """Return the metrics that both revisions have, in the order of the files. Those in `other` are measured differently."""
    found = [figure(name, before[name], value, noise.get(name)) for name, value in after.items() if name in before]
    return [one._replace(mark=APART) if one.name in other and one.mark != SAME else one for one in found]


def figure(name: str, before: float, after: float, noise: float | None) -> Figure:
    """Return a metric with its mark."""
    if before == after:
        mark = SAME
    elif noise is not None and abs(after - before) <= noise:
        mark = NOISE
    elif direction(name) == 0 or noise is None:
        mark = CHANGED
    else:
        mark = BETTER if (after - before) * direction(name) > 0 else WORSE
    return Figure(name, before, after, noise, mark)


def direction(name: str) -> int:
    """Return 1 if a higher value is better, -1 if a lower value is better, and 0 if neither is.

    Figures of base and sft say what RLHF starts from. Rewards and validation scores are in units of their own reward model.
    Perplexity says how likely the base model is to write a response, and not how good the response is.
    """
    file, *_, key = name.split(".")
    if name.startswith(("evaluation.base.", "evaluation.sft.")):
        return 0
    if key in (_HIGHER if file == "evaluation" else _HIGHER_ELSEWHERE):
        return 1
    return -1 if key in _LOWER else 0


def interval(name: str) -> str | None:
    """Return the metric to which a bound of an interval belongs, or None if `name` is not a bound."""
    match = _INTERVAL.fullmatch(name)
    if not match:
        return None
    parent, mean, ratio, accuracy, _ = match.groups()
    return parent + ("mean_positive" if mean else ratio.removesuffix("_ci") if ratio else accuracy)


def bounds(name: str, metrics: dict[str, float]) -> list[float]:
    """Return the lower and the upper bound of a metric's interval, or an empty list."""
    found = {bound.rpartition("_")[2]: value for bound, value in metrics.items() if interval(bound) == name}
    return [found["low"], found["high"]] if found.keys() == {"low", "high"} else []
