"""How values and sentences are shown to people: on one line, short, and with nothing that a terminal would obey."""

import os
import reprlib
import sys
from pathlib import Path

LONGEST = 80  # characters of a quoted value

# What `dvc repro` makes again. Whatever else lies in a repository is somebody's own.
MADE = (
    *("data/checked.json", "data/prepared", "data/samples", "metrics", "plots", "reports"),
    *("models/base", "models/sft", "models/reward", "models/judge", "models/ppo"),
)


def shown(value: object) -> str:
    """`value` as a message quotes it: its `repr`, at most about 80 characters of it.

    `repr` escapes line ends, control characters and whatever else cannot be printed. The cost does not grow with the value.

    Example:
        >>> shown("one\\ntwo")
        "'one\\\\ntwo'"
    """
    short = reprlib.Repr()
    short.maxstring = short.maxlong = short.maxother = LONGEST
    text = short.repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."


def one_line(message: object) -> str:
    """`message` with each character that cannot be printed, line ends among them, as an escape sequence."""
    text = str(message)
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def warn(name: str, message: object) -> None:
    """Print a warning of a stage on stderr, on one line."""
    print(f"{name}: warning: {one_line(message)}", file=sys.stderr, flush=True)


def is_made(path: str | Path) -> bool:
    """Whether the pipeline makes `path`, and can make it again."""
    return any(Path(os.path.abspath(path)).is_relative_to(Path(made).absolute()) for made in MADE)


def mend_of(path: str | Path) -> str:
    """What to do about a file or folder that is damaged. No other message may advise to delete anything."""
    if is_made(path):
        return "delete it and run `dvc repro`"
    return "it is not of the pipeline's making: bring a whole one, or name another in params.yaml"
