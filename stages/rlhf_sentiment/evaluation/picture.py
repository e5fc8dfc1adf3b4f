"""The frame of the PNG plots: their style and their file. The same numbers give the same bytes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..engine.compression import png
from ..engine.outputs import writing

_STYLE: dict[str, Any] = {
    "figure.dpi": 120,
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}


@contextmanager
def picture(path: str | Path, columns: int, width: float, height: float) -> Iterator[list[Any]]:
    """Give the axes of a figure, and write it as a PNG at the end of the block.

    Args:
        path: the file.
        columns: the number of panels, side by side.
        width, height: of a panel, in inches.
    """
    with style.context(["default", _STYLE]):  # not the style of a user's matplotlibrc
        figure = Figure(figsize=(width * columns, height), layout="constrained")
        canvas = FigureCanvasAgg(figure)
        yield list(figure.subplots(1, columns, squeeze=False)[0])
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3]  # none is transparent
        with writing(path) as aside:
            aside.write_bytes(png(pixels))
