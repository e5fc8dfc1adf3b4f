"""The PNG plots. The same numbers give the same bytes. All readers can tell Okabe and Ito's colours apart."""

from itertools import cycle
from typing import NamedTuple

import numpy as np
import pandas as pd

from .contestants import CONTESTANTS
from .picture import picture
from .plot_data import Tables

_BLUE, _ORANGE = "#0072B2", "#D55E00"
_HEIGHT = 3.2  # inches


class _Look(NamedTuple):
    colour: str
    hatch: str
    marker: str


_LOOKS = (
    _Look("#999999", "", "s"),
    _Look(_BLUE, "//", "o"),
    _Look(_ORANGE, "..", "D"),
    _Look("#009E73", "xx", "^"),
    _Look("#CC79A7", "--", "v"),
)
# By the place in the table of contestants. A sixth contestant has the look of the first.
_LOOK_OF = dict(zip(CONTESTANTS, cycle(_LOOKS), strict=False))


def _error(rows: pd.DataFrame) -> np.ndarray:
    # Not below 0: a BCa interval of few, skewed values may leave out their mean.
    return np.maximum([rows["value"] - rows["low"], rows["high"] - rows["value"]], 0)


def training(path: str, sft: pd.DataFrame, reward: pd.DataFrame) -> None:
    """Draw the curves of supervised fine-tuning and of the reward model."""
    with picture(path, 3, 4.2, _HEIGHT) as (left, middle, right):
        left.plot(sft["step"], sft["loss"], color=_BLUE)
        left.set(title="Supervised fine-tuning", xlabel="optimizer step", ylabel="loss (nats per token)")
        middle.plot(reward["step"], reward["loss"], color=_ORANGE)
        middle.axhline(np.log(2), color="black", linestyle=":", linewidth=1, label="chance")
        middle.set(title="Reward model", xlabel="optimizer step", ylabel="loss (nats per pair)", ylim=(0, None))
        middle.legend()
        right.plot(reward["step"], reward["accuracy"], color=_ORANGE)
        right.axhline(0.5, color="black", linestyle=":", linewidth=1, label="chance")
        right.set(title="Reward model", xlabel="optimizer step", ylabel="accuracy on training pairs", ylim=(0, 1.02))
        right.legend()


def ppo(path: str, curve: pd.DataFrame, validation: pd.DataFrame) -> None:
    """Draw reward, KL and entropy over PPO's steps."""
    with picture(path, 3, 4.2, _HEIGHT) as (left, middle, right):
        left.plot(curve["step"], curve["score"], color=_ORANGE, label="training prompts")
        left.plot(validation["step"], validation["score"], "o--", color="black", markersize=3, label="validation prompts")
        left.set(title="Reward", xlabel="PPO step", ylabel="score of the reward model")
        left.legend()
        middle.plot(curve["step"], curve["kl_penalty"], color=_ORANGE, label="k1 (charged)")
        middle.plot(curve["step"], curve["kl_k3"], color=_BLUE, linestyle="--", label="k3")
        middle.set(title="KL from the fine-tuned model", xlabel="PPO step", ylabel="nats per response")
        middle.legend()
        right.plot(curve["step"], curve["entropy"], color=_ORANGE)
        right.set(title="Entropy", xlabel="PPO step", ylabel="nats per token", ylim=(0, None))


def comparison(path: str, table: pd.DataFrame, confidence: float) -> None:
    """Draw a bar with its interval for each contestant.

    Args:
        path: the PNG file.
        table: columns model, figure ("mean P(positive)" or "positive ratio"), value, low, high.
        confidence: the level of the intervals.
    """
    with picture(path, 2, 3.4, _HEIGHT) as axes:
        for panel, (figure, rows) in zip(axes, table.groupby("figure", sort=True), strict=True):
            error, colours = _error(rows), [_LOOK_OF[model].colour for model in rows["model"]]
            bars = panel.bar(rows["model"], rows["value"], yerr=error, capsize=4, color=colours)
            for bar, model in zip(bars, rows["model"], strict=True):
                bar.set(hatch=_LOOK_OF[model].hatch, edgecolor="white")
            panel.bar_label(bars, fmt="%.2f", padding=3)
            panel.set(title=f"{figure}, {100 * confidence:g} % interval", ylabel=figure, ylim=(0, 1.12))
            panel.grid(axis="x", visible=False)


def reliability(path: str, tables: dict[tuple[str, str], pd.DataFrame], words: int) -> None:
    """Draw the share of positive texts against P(positive), a panel for each judge.

    Args:
        path: the PNG file.
        tables: (judge, "whole" or "cut") -> `classifier.reliability`, with NaN in bins that are not drawn.
        words: the number of words of a cut text.
    """
    names = list(dict.fromkeys(name for name, _ in tables))
    with picture(path, len(names), 3.2, _HEIGHT) as axes:
        for panel, name in zip(axes, names, strict=True):
            panel.plot([0, 1], [0, 1], color="black", linestyle=":", linewidth=1, label="perfect calibration")
            for way, colour, style in (("whole", _BLUE, "o-"), ("cut", _ORANGE, "s--")):
                table = tables[name, way]
                label = "whole texts" if way == "whole" else f"truncated to {words} words"
                panel.plot(table["said"], table["was"], style, color=colour, markersize=4, label=label)
            panel.set(title=name, xlabel="predicted P(positive)", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
        axes[0].set_ylabel("share of texts that are positive")
        axes[0].legend(loc="upper left")


def frontier(path: str, models: pd.DataFrame, curve: pd.DataFrame, validation: pd.DataFrame, confidence: float) -> None:
    """Draw positivity against KL: the contestants on test prompts, and PPO's policy during training.

    Args:
        path: the PNG file.
        models: columns model, kl, value, low, high.
        curve: columns kl_penalty, score, a row for each PPO step.
        validation: columns kl, score, in the order of the steps.
        confidence: the level of the intervals.
    """
    with picture(path, 2, 4.2, _HEIGHT) as (left, right):
        for name, rows in models.groupby("model", sort=False):
            look, places = _LOOK_OF[str(name)], (rows["kl"], rows["value"])
            left.errorbar(*places, yerr=_error(rows), fmt=look.marker, color=look.colour, label=name, capsize=4)
        left.set(title=f"Test prompts, {100 * confidence:g} % interval", ylabel="mean P(positive)", ylim=(0, 1.02))
        left.legend(loc="lower right")
        right.plot(curve["kl_penalty"], curve["score"], ".", color=_ORANGE, label="training batches")
        right.plot(validation["kl"], validation["score"], "o--", color="black", markersize=4, label="validation prompts")
        right.set(title="The policy during PPO", ylabel="score of the reward model")
        right.legend(loc="lower right")
        for panel in (left, right):
            panel.set_xlabel("KL from the fine-tuned model (nats per response)")


def distribution(path: str, positive: dict[str, np.ndarray], bins: np.ndarray) -> None:
    """Draw the distribution of P(positive), a panel for each contestant.

    Args:
        path: the PNG file.
        positive: P(positive) of each answer. name -> (N x S,)
        bins: the edges of the bins.
    """
    with picture(path, len(positive), 3.2, _HEIGHT) as axes:
        for panel, (name, values) in zip(axes, positive.items(), strict=True):
            look, weights = _LOOK_OF[name], np.full(len(values), 1 / len(values))
            panel.hist(values, bins=list(bins), weights=weights, color=look.colour, hatch=look.hatch, edgecolor="white")
            side = "center" if 0.15 < values.mean() < 0.85 else "right" if values.mean() > 0.5 else "left"
            panel.axvline(values.mean(), color="black", linestyle="--", linewidth=1)
            panel.text(
                values.mean(), 1.0, f"mean {values.mean():.2f}", ha=side, va="bottom", transform=panel.get_xaxis_transform()
            )
            panel.set(xlabel="P(positive) of a response", xlim=(0, 1))
            panel.set_title(name, pad=16)
        axes[0].set_ylabel("share of responses")
        top = max(panel.get_ylim()[1] for panel in axes)
        for panel in axes:
            panel.set_ylim(0, top)


def draw(
    tables: Tables, positive: dict[str, np.ndarray], curves: dict[str, pd.DataFrame], words: int, confidence: float
) -> None:
    """Write all figures to plots/.

    Args:
        tables: the tables of the run.
        positive: the classifier's P(positive) of the answers of each contestant. name -> (N, S)
        curves: what the training stages wrote: sft, reward, ppo and ppo_validation.
        words: the number of words of a cut text.
        confidence: the level of the intervals.
    """
    comparison("plots/comparison.png", tables.comparison, confidence)
    distribution("plots/distribution.png", {name: values.ravel() for name, values in positive.items()}, tables.bins)
    reliability("plots/reliability.png", tables.calibration, words)
    frontier("plots/frontier.png", tables.frontier, curves["ppo"], curves["ppo_validation"], confidence)
    training("plots/training.png", curves["sft"], curves["reward"])
    ppo("plots/ppo.png", curves["ppo"], curves["ppo_validation"])
