"""Progress bars, where somebody looks: in a terminal and in a notebook."""

import os
import sys
from typing import Any

from tqdm.auto import tqdm

# Set for a stage whose output goes to a notebook: it has no terminal, and yet somebody looks.
WATCHED = "RLHF_SENTIMENT_WATCHED"


def in_notebook() -> bool:
    """Whether this Python is a notebook's kernel."""
    return "ipykernel" in sys.modules


def progress_bar(*args: Any, shown: bool = True, **options: Any) -> Any:
    """tqdm's bar, with its arguments; without `shown`, or where nobody looks, it counts in silence."""
    if not shown:
        options["disable"] = True
    elif not in_notebook() and WATCHED not in os.environ:
        options["disable"] = None  # tqdm's way to say: unless this is a terminal
    return tqdm(*args, **options)
