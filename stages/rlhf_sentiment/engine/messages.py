"""Show values, names and sentences to people: short, on one line, and without terminal control characters.

Settings, file names, column names, labels, prompts and responses may have any character and any length. All errors and
warnings pass through `one_line`. Other text passes through `visible` or, in Markdown, `escaped`.
"""

import argparse
import itertools
import os
import reprlib
import sys
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import NoReturn

import yaml

LONGEST = 80  # characters of a value that a message quotes
_LONGEST_WORD = 200  # characters without a space, such as a path
_LONGEST_LINE = 1_000
_MOST_NAMES, _LONGEST_NAME = 8, 30
_JOINERS = "\u200c\u200d"  # Persian words and emoji need them
_PIPELINE = Path(__file__).parents[3] / "dvc.yaml"
_MARKDOWN = "\\`*_{}[]<>#|!&~"

_short = reprlib.Repr()
_short.maxstring = _short.maxlong = _short.maxother = LONGEST


def cut(text: str, longest: int = LONGEST) -> str:
    """Return `text` with at most `longest` characters. A longer text keeps its start and its end.

    Example:
        >>> cut("a message without end", 11)
        'a me... end'
    """
    if len(text) <= longest:
        return text
    end = (longest - 3) // 2
    return f"{text[: longest - 3 - end]}...{text[len(text) - end :]}"


def shown(value: object) -> str:
    r"""Return `value` as a message quotes it: at most 80 characters of its `repr`, for a value of any size.

    Example:
        >>> shown("one\ntwo")
        "'one\\ntwo'"
    """
    try:
        text = _short.repr(value)
    except Exception:  # an integer of 5,000 digits, or a user's object without a working repr
        text = f"<{type(value).__name__}>"
    return cut(_printable(text))


def listed(names: Collection[object]) -> str:
    """Return names as a message lists them: the first eight, each truncated, and the number of the others.

    Example:
        >>> listed(["text", "label"])
        'text, label'
    """
    first = [cut(_printable(str(name)), _LONGEST_NAME) for name in itertools.islice(names, _MOST_NAMES)]
    more = [f"and {len(names) - _MOST_NAMES} more"] if len(names) > _MOST_NAMES else []
    return ", ".join(first + more)


def one_line(message: object) -> str:
    """Return `message` on one line. Unprintable characters, such as line ends, become escape sequences.

    Words are truncated to 200 characters, and the line to 1,000. The start stays, which says where the fault is. The end stays,
    which says what would be right.
    """
    text = _printable(cut(str(message), 4 * _LONGEST_LINE))
    return cut(" ".join(cut(word, _LONGEST_WORD) for word in text.split(" ")), _LONGEST_LINE)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def visible(text: str) -> str:
    """Return the whole `text` on one line for a terminal.

    Characters that control a terminal, or change the direction of writing, are replaced.
    """
    return "".join(letter if letter.isprintable() or letter in _JOINERS else "\ufffd" for letter in " ".join(text.split()))


def escaped(text: str) -> str:
    """Return `text` for Markdown: as `visible`, and with its mark-up escaped."""
    return "".join("\\" + letter if letter in _MARKDOWN else letter for letter in visible(text))


def tell(name: str, message: object) -> None:
    """Print a message on stderr, on one line that begins with the stage's name."""
    print(f"{name}: {one_line(message)}", file=sys.stderr, flush=True)


def warn(name: str, message: object) -> None:
    """Print a stage's warning on stderr, on one line."""
    tell(name, f"warning: {message}")


class Parser(argparse.ArgumentParser):
    """A command line parser whose errors are one line, like all other errors."""

    def error(self, message: str) -> NoReturn:
        """Print the error on one line, and exit with status 2."""
        tell(self.prog, f"{cut(message, 300)} (see --help)")
        sys.exit(2)


@cache
def made() -> list[Path]:
    """Return the paths that `dvc repro` can write again: the outs of dvc.yaml. All other files may be a user's own.

    An out whose name has a variable counts as its folder.
    """
    stages = yaml.safe_load(_PIPELINE.read_text(encoding="utf-8"))["stages"].values()
    bodies = [stage.get("do", stage) for stage in stages]
    entries = [entry for body in bodies for kind in ("outs", "metrics", "plots") for entry in body.get(kind, ())]
    outs = [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]
    folders = (Path(out.partition("${")[0] + "NAME").parent if "${" in out else Path(out) for out in outs)
    return sorted({folder for folder in folders if folder.name})


def is_made(path: str | Path) -> bool:
    """Return whether the pipeline writes `path`, and can write it again."""
    return any(Path(os.path.abspath(path)).is_relative_to(out.absolute()) for out in made())


def mend_of(path: str | Path) -> str:
    """Return what to do about a damaged file or folder. No other message may advise to delete anything."""
    if is_made(path):
        return "delete it and run `dvc repro`"
    return "the pipeline did not make it; replace it with an intact copy, or name another one in params.yaml"
