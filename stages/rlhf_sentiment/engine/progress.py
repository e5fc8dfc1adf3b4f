"""Progress bars, shown only in a terminal and in a notebook."""

import os
import sys
from typing import Any

from tqdm.auto import tqdm

# Set for a stage whose output a notebook shows. Such a stage has no terminal, but needs its bars.
WATCHED = "RLHF_SENTIMENT_WATCHED"


def in_notebook() -> bool:
    """Return whether this Python is a notebook's kernel."""
    return "ipykernel" in sys.modules


def progress_bar(*args: Any, shown: bool = True, **options: Any) -> Any:
    """Return a tqdm bar. It is invisible without `shown`, and outside a terminal and a notebook.

    Args:
        args: arguments of tqdm.
        shown: whether to show the bar at all.
        options: keyword arguments of tqdm.
    """
    if not shown:
        options["disable"] = True
    elif not in_notebook() and WATCHED not in os.environ:
        options["disable"] = None  # for tqdm, None means: disable outside a terminal
    return tqdm(*args, **options)
