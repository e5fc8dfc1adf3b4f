"""How values, names and sentences are shown to people: on one line, short, and with nothing that a terminal would obey.

Settings, file names, column names, labels, prompts and what models write may hold any character and be of any length. All
errors and warnings pass through `one_line`; what is shown as text passes through `visible` or, in Markdown, `escaped`.
"""

import argparse
import itertools
import os
import reprlib
import sys
from collections.abc import Collection
from pathlib import Path
from typing import NoReturn

LONGEST = 80  # characters of a value that a message quotes
_LONGEST_WORD = 200  # of what has no space: a path, say
_LONGEST_LINE = 1_000
_MOST_NAMES, _LONGEST_NAME = 8, 30
_JOINERS = "\u200c\u200d"  # Persian words and emoji are written with them
_MARKDOWN = "\\`*_{}[]<>#|!&~"

_short = reprlib.Repr()
_short.maxstring = _short.maxlong = _short.maxother = LONGEST


def cut(text: str, longest: int = LONGEST) -> str:
    """`text` with at most `longest` characters: of a longer one the start and the end.

    Example:
        >>> cut("a message without end", 11)
        'a me... end'
    """
    if len(text) <= longest:
        return text
    end = (longest - 3) // 2
    return f"{text[: longest - 3 - end]}...{text[len(text) - end :]}"


# What `dvc repro` makes again. Whatever else lies in a repository is somebody's own.
MADE = (
    *("data/checked.json", "data/prepared", "data/samples", "metrics", "plots", "reports"),
    *("models/base", "models/sft", "models/reward", "models/judge", "models/ppo"),
)


def shown(value: object) -> str:
    """`value` as a message quotes it: its `repr`, at most 80 characters of it, whatever the value's size.

    Example:
        >>> shown("one\\ntwo")
        "'one\\\\ntwo'"
    """
    try:
        text = _short.repr(value)
    except Exception:  # a whole number of 5,000 digits; an object of a user's that does not show itself
        text = f"<{type(value).__name__}>"
    return cut(_printable(text))


def listed(names: Collection[object]) -> str:
    """Names as a message lists them, such as those of columns: the first eight, each cut, and how many more there are.

    Example:
        >>> listed(["text", "label"])
        'text, label'
    """
    first = [cut(_printable(str(name)), _LONGEST_NAME) for name in itertools.islice(names, _MOST_NAMES)]
    more = [f"and {len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
    return ", ".join(first + more)


def one_line(message: object) -> str:
    """`message` on one line and cut: what cannot be printed, line ends among it, becomes an escape sequence.

    Words without end, such as a path of 5,000 characters, are cut to 200, and the line to 1,000: a message keeps its
    start, which says where, and its end, which says what would be right.
    """
    text = _printable(cut(str(message), 4 * _LONGEST_LINE))
    return cut(" ".join(cut(word, _LONGEST_WORD) for word in text.split(" ")), _LONGEST_LINE)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def visible(text: str) -> str:
    """`text`, whole, for a terminal: on one line, and with nothing that a terminal would obey, such as escape sequences or
    marks that turn the direction of writing."""
    return "".join(letter if letter.isprintable() or letter in _JOINERS else "\ufffd" for letter in " ".join(text.split()))


def escaped(text: str) -> str:
    """`text` for Markdown: as `visible`, with no mark-up of its own."""
    return "".join("\\" + letter if letter in _MARKDOWN else letter for letter in visible(text))


def tell(name: str, message: object) -> None:
    """Print what is wrong on stderr, on one line that begins with the stage's name."""
    print(f"{name}: {one_line(message)}", file=sys.stderr, flush=True)


def warn(name: str, message: object) -> None:
    """Print a warning of a stage on stderr, on one line."""
    tell(name, f"warning: {message}")


class Parser(argparse.ArgumentParser):
    """A command line whose errors are one line, as all others are."""

    def error(self, message: str) -> NoReturn:
        tell(self.prog, f"{cut(message, 300)} (--help says more)")
        sys.exit(2)


def is_made(path: str | Path) -> bool:
    """Whether the pipeline makes `path`, and can make it again."""
    return any(Path(os.path.abspath(path)).is_relative_to(Path(made).absolute()) for made in MADE)


def mend_of(path: str | Path) -> str:
    """What to do about a file or folder that is damaged. No other message may advise to delete anything."""
    if is_made(path):
        return "delete it and run `dvc repro`"
    return "it is not of the pipeline's making: bring a whole one, or name another in params.yaml"
