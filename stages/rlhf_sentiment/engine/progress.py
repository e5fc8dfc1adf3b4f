"""Show progress: bars in a terminal and in a notebook, lines in a log, and a table of figures that grows with each step."""

import csv
import math
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tqdm import tqdm as plain_tqdm
from tqdm.auto import tqdm

from .inputs import in_copy, repository
from .messages import one_line, warn
from .ranks import is_main
from .records import Row, rounded

# Set for a stage whose output a notebook shows. Such a stage has no terminal, but needs its bars.
WATCHED = "RLHF_SENTIMENT_WATCHED"

# A line comes after 5 % of the work or 30 seconds, but never within 5 seconds of the start or of the line before.
_SHARE, _LONGEST, _SHORTEST = 0.05, 30.0, 5.0

_in_stage = False


def in_notebook() -> bool:
    """Return whether this Python is a notebook's kernel."""
    return "ipykernel" in sys.modules


def progress_bar(*args: Any, shown: bool = True, **options: Any) -> Any:
    """Return a tqdm bar, which prints lines on stderr where there is no terminal and no notebook.

    Args:
        args, options: arguments of tqdm.
        shown: whether to show progress at all.
    """
    if not shown or not is_main():
        return tqdm(*args, **options, disable=True)
    if in_notebook() or WATCHED in os.environ or sys.stderr.isatty():
        return tqdm(*args, **options)
    return _Lines(*args, **options, delay=_SHORTEST, mininterval=1, miniters=1)


class _Lines(plain_tqdm):
    """A bar that prints lines. tqdm calls `display` where it would draw the bar.

    ppo: 60 of 200 steps, reward 0.48, score 0.61, KL 1.20, 05:10 passed, 12:05 left
    """

    monitor_interval = 0  # no thread that redraws
    last: tuple[float, float] | None = None  # the seconds since the start, and the count, at the last line

    def display(self, *_: Any, **__: Any) -> None:
        """Print a line where one is due."""
        passed, before = self.format_dict["elapsed"], self.last or (0.0, self.initial)
        waited, moved = passed - before[0], self.n - before[1]
        if waited >= _LONGEST or (waited >= _SHORTEST and self.total and moved >= _SHARE * self.total):
            self.last = passed, self.n
            with suppress(OSError):  # a full disk or a closed pipe does not stop the work
                print(one_line(self.line(passed)), file=sys.stderr, flush=True)

    def line(self, passed: float) -> str:
        """Return the line. The time left follows from the mean speed of this process."""
        count = self.format_sizeof if self.unit_scale else str
        parts = [f"{count(self.n)}{f' of {count(self.total)}' if self.total else ''}{self.unit}"]
        parts += [self.postfix.replace("=", " ").replace("_", " ")] if self.postfix else []
        parts += [f"{self.format_interval(passed)} passed"]
        if self.total and self.n > self.initial:
            parts += [f"{self.format_interval((self.total - self.n) * passed / (self.n - self.initial))} left"]
        return f"{self.desc}: {', '.join(parts)}"

    def clear(self, *_: Any, **__: Any) -> None:
        """Leave the lines as they are."""

    def close(self) -> None:
        """Print no last line. A stage has its own."""
        self.delay = math.inf  # for tqdm, the bar was never drawn
        super().close()


@contextmanager
def live_tables() -> Iterator[None]:
    """Let live tables be written inside the block, which runs a stage. The functions of the Python API write none."""
    global _in_stage
    _in_stage = True
    try:
        yield
    finally:
        _in_stage = False


class LiveTable:
    """The figures of each step of a training run, in runs/STAGE/live.csv, which is not among DVC's outs."""

    def __init__(self, stage: str, rows: Iterable[Row]) -> None:
        """Replace the old table by the rows up to a checkpoint. A queued or --temp experiment has its own table."""
        experiment = os.environ.get("DVC_EXP_NAME", "") if in_copy() else ""
        self.stage, self.path = stage, repository() / "runs" / stage / experiment / "live.csv"
        self.works = _in_stage
        self.add(*rows, mode="w")

    def add(self, *rows: Row, mode: str = "a") -> None:
        """Add rows, all with the same columns. After an error, such as a full disk, no row is written."""
        if not self.works:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, mode, encoding="utf-8", newline="") as file:
                table = csv.writer(file, lineterminator="\n")
                for row in rows:
                    if file.tell() == 0:
                        table.writerow(row)
                    table.writerow(rounded(list(row.values()), digits=5))
        except OSError as error:
            self.works = False
            with suppress(OSError):  # the log is on the full disk, too
                warn(self.stage, f"{self.path} gets no more rows: {error.strerror}")
