"""The tables that `evaluate` writes, and that its figures show."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ..engine.records import Row, write_table
from .classifier import reliability
from .contestants import CONTESTANTS
from .samples import Samples
from .statistics import interval

_FEWEST = 5  # texts of a bin that calibration shows: fewer show only noise


class Tables(NamedTuple):
    """The tables of a run.

    Attributes:
        comparison: columns model, figure, value, low, high and kl. A row for each contestant and figure.
        frontier: columns model, kl, value, low and high. A row for each contestant.
        bins: the edges of the bins of P(positive). (21,)
        distribution: columns model, P(positive), the left edge of a bin, and share, of the contestant's answers. A row for each
            contestant and bin.
        calibration: (judge, "whole" or "cut") -> `classifier.reliability`, with NaN in bins of few texts.
        reliability: the same, in one table with columns judge, text, P(positive), share and texts. text is "whole" or "cut",
            P(positive) the mean of a bin, share the share of its texts that is positive, and texts their number. A bin of few
            texts has its middle and a share of NaN, which interrupts the curve.
    """

    comparison: pd.DataFrame
    frontier: pd.DataFrame
    bins: np.ndarray
    distribution: pd.DataFrame
    calibration: dict[tuple[str, str], pd.DataFrame]
    reliability: pd.DataFrame


def make_tables(
    result: Row,
    positive: dict[str, np.ndarray],
    examined: dict[str, dict[str, np.ndarray]],
    labels: np.ndarray,
    certainty: dict[str, Any],
) -> Tables:
    """Return the tables.

    Args:
        result: the tree of reports/evaluation.json.
        positive: the classifier's P(positive) of the answers of each contestant. name -> (N, S)
        examined: P(positive) of the exam's texts. judge -> "whole" or "cut" -> (M,)
        labels: of the exam's texts. (M,)
        certainty: the arguments of `interval`.
    """
    comparison = _comparison(result, positive, certainty)
    frontier = comparison[comparison["figure"] == "mean P(positive)"][["model", "kl", "value", "low", "high"]]
    bins = np.linspace(0, 1, 21)
    shares = {name: np.histogram(values, bins)[0] / values.size for name, values in positive.items()}
    distribution = pd.concat(
        pd.DataFrame({"model": name, "P(positive)": bins[:-1], "share": share}) for name, share in shares.items()
    )
    calibration = {}
    for judge, ways in examined.items():
        for way, p in ways.items():
            table = reliability(p, labels)
            calibration[judge, way] = table[["said", "was"]].where(table["texts"] >= _FEWEST).assign(texts=table["texts"])
    return Tables(comparison, frontier, bins, distribution, calibration, _one_table(calibration))


def _one_table(calibration: dict[tuple[str, str], pd.DataFrame]) -> pd.DataFrame:
    parts = []
    for (judge, way), table in calibration.items():
        middle = pd.Series((table.index + 0.5) / len(table))
        columns = {"P(positive)": table["said"].fillna(middle), "share": table["was"], "texts": table["texts"]}
        parts.append(pd.DataFrame({"judge": judge, "text": way, **columns}))
    return pd.concat(parts)


def _comparison(result: Row, positive: dict[str, np.ndarray], certainty: dict[str, Any]) -> pd.DataFrame:
    bars = []
    for figure, values in (
        ("mean P(positive)", positive),
        ("positive ratio", {name: (p > 0.5) * 1.0 for name, p in positive.items()}),
    ):
        for name in CONTESTANTS:
            each = values[name].mean(axis=1)
            low, high = interval(each, **certainty)
            bar = {"value": each.mean(), "low": low, "high": high, "kl": result[name]["kl_to_sft"]}
            bars.append({"model": name, "figure": figure, **bar})
    return pd.DataFrame(bars)


def side_by_side(samples: Samples, positive: dict[str, np.ndarray], count: int) -> list[Row]:
    """Return the first answer of each contestant to the first `count` prompts, with P(positive)."""
    first = {name: rows[:: samples.each] for name, rows in samples.answers.items()}
    return [
        {"prompt": samples.prompts[i]}
        | {name: first[name][i]["response"] for name in CONTESTANTS}
        | {f"{name}_positive": positive[name][i, 0] for name in CONTESTANTS}
        for i in range(min(count, len(samples.prompts)))
    ]


def write_tables(tables: Tables, listed: list[Row]) -> None:
    """Write the tables, and the rows of `side_by_side`, to plots/."""
    write_table("plots/comparison.csv", tables.comparison.drop(columns="kl"))
    write_table("plots/frontier.csv", tables.frontier)
    write_table("plots/distribution.csv", tables.distribution)
    write_table("plots/reliability.csv", tables.reliability)
    write_table("plots/samples.csv", listed, digits=4)
