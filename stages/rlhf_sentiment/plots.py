"""Pictures for people. The same numbers give the same bytes; colours are Okabe and Ito's, told apart by all readers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .run import writing

COLOURS = {"base": "#999999", "sft": "#0072B2", "rlhf": "#D55E00"}
HATCHES = {"base": "", "sft": "//", "rlhf": ".."}
_STYLE: dict[Any, Any] = {
    "figure.dpi": 120,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}


@contextmanager
def _picture(path: str, columns: int, width: float = 4.2) -> Iterator[tuple[Figure, list[Axes]]]:
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(1, columns, figsize=(width * columns, 3.2), layout="constrained", squeeze=False)
        yield figure, list(axes[0])
        with writing(path) as aside:
            figure.savefig(aside, format="png", metadata={"Software": None})
        plt.close(figure)


def training(path: str, sft: pd.DataFrame, reward: pd.DataFrame) -> None:
    """The curves of supervised fine-tuning and of the reward model."""
    with _picture(path, 3) as (_, (left, middle, right)):
        left.plot(sft["step"], sft["loss"], color=COLOURS["sft"])
        left.set(title="Supervised fine-tuning", xlabel="optimizer step", ylabel="loss (nats per token)")
        middle.plot(reward["step"], reward["loss"], color=COLOURS["rlhf"])
        middle.axhline(np.log(2), color="black", linestyle=":", linewidth=1, label="a coin")
        middle.set(title="Reward model", xlabel="optimizer step", ylabel="loss (nats per pair)", ylim=(0, None))
        middle.legend()
        right.plot(reward["step"], reward["accuracy"], color=COLOURS["rlhf"])
        right.axhline(0.5, color="black", linestyle=":", linewidth=1, label="a coin")
        right.set(title="Reward model", xlabel="optimizer step", ylabel="accuracy on training pairs", ylim=(0, 1.02))
        right.legend()


def ppo(path: str, curve: pd.DataFrame, validation: pd.DataFrame) -> None:
    """Reward and KL over PPO's steps."""
    with _picture(path, 3) as (_, (left, middle, right)):
        left.plot(curve["step"], curve["score"], color=COLOURS["rlhf"], label="training prompts")
        left.plot(validation["step"], validation["score"], "o--", color="black", markersize=3, label="validation prompts")
        left.set(title="Reward", xlabel="PPO step", ylabel="reward model's score")
        left.legend()
        middle.plot(curve["step"], curve["kl_penalty"], color=COLOURS["rlhf"], label="as charged (k1)")
        middle.plot(curve["step"], curve["kl_k3"], color=COLOURS["sft"], linestyle="--", label="k3")
        middle.set(title="KL from the fine-tuned model", xlabel="PPO step", ylabel="nats per response")
        middle.legend()
        right.plot(curve["step"], curve["entropy"], color=COLOURS["rlhf"])
        right.set(title="Entropy", xlabel="PPO step", ylabel="nats per token", ylim=(0, None))


def comparison(path: str, table: pd.DataFrame, confidence: float) -> None:
    """Bars of the models with intervals.

    Args:
        table: columns model, figure ("mean P(positive)" or "positive ratio"), value, low, high.
        confidence: of the intervals.
    """
    with _picture(path, 2, 3.4) as (_, axes):
        for panel, (figure, rows) in zip(axes, table.groupby("figure", sort=True), strict=True):
            error = np.array([rows["value"] - rows["low"], rows["high"] - rows["value"]])
            bars = panel.bar(rows["model"], rows["value"], yerr=error, capsize=4, color=[COLOURS[m] for m in rows["model"]])
            for bar, model in zip(bars, rows["model"], strict=True):
                bar.set(hatch=HATCHES[model], edgecolor="white")
            panel.bar_label(bars, fmt="%.2f", padding=3)
            panel.set(title=f"{figure}, {100 * confidence:g} % interval", ylabel=figure, ylim=(0, 1.12))
            panel.grid(axis="x", visible=False)


def distribution(path: str, positive: dict[str, np.ndarray], bins: np.ndarray) -> None:
    """How P(positive) is spread, a panel for each model."""
    with _picture(path, len(positive), 3.2) as (_, axes):
        for panel, (model, values) in zip(axes, positive.items(), strict=True):
            weights = np.full(len(values), 1 / len(values))
            panel.hist(values, bins=list(bins), weights=weights, color=COLOURS[model], hatch=HATCHES[model], edgecolor="white")
            panel.axvline(values.mean(), color="black", linestyle="--", linewidth=1)
            panel.text(
                values.mean(), 1.0, f"mean {values.mean():.2f}", ha="center", va="bottom", transform=panel.get_xaxis_transform()
            )
            panel.set(xlabel="P(positive) of a response", xlim=(0, 1))
            panel.set_title(model, pad=16)
        axes[0].set_ylabel("share of responses")
        top = max(panel.get_ylim()[1] for panel in axes)
        for panel in axes:
            panel.set_ylim(0, top)
