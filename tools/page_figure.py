"""The figures of the pages on seeds and sweeps. The same values give the same bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from rlhf_sentiment.engine.outputs import writing

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
def picture(path: Path, columns: int, size: tuple[float, float]) -> Iterator[list[Any]]:
    """Give the axes of a figure, and write it as a PNG at the end of the block.

    Args:
        path: the file.
        columns: the number of panels, side by side.
        size: width and height of the figure, in inches.
    """
    with plt.rc_context(_STYLE):
        figure, axes = plt.subplots(1, columns, figsize=size, layout="constrained", squeeze=False)
        yield list(axes[0])
        with writing(path) as aside:
            figure.savefig(aside, format="png", metadata={"Software": None})
        plt.close(figure)
