"""How values and sentences are shown to people: on one line, short, and with nothing that a terminal would obey."""

import reprlib
import sys

LONGEST = 80  # characters of a quoted value


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
