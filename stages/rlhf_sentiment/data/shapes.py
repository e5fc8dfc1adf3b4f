"""Recognise the shape of rows from their columns.

| shape       | columns                                                                              | becomes  |
|-------------|--------------------------------------------------------------------------------------|----------|
| preferences | `prompt`, `chosen`, `rejected`: texts, transcripts, or lists of messages              | Ranked   |
| transcripts | `chosen`, `rejected`: whole, as in HH-RLHF (2204.05862), or lists of messages         | Ranked   |
| votes       | `response_a`, `response_b`, `prompt` if they do not contain it, and a preference      | Ranked   |
| completions | `prompt`, `completions`, `scores` (more is better) or `ranks` (1 is best)             | Ranked   |
| labelled    | `text`, or `prompt` and `response`, or `messages`; and `label` or `rating`            | Labelled |
| plain       | `text`, or `messages`                                                                 | Plain    |
| prompts     | `prompt`, or `messages`, or a transcript `chosen`, or `text`                          | Plain    |

A preference has one of three forms:

- `preference`, with one value or a list;
- a column for each annotator, such as `annotator1`;
- a column for each outcome, as in LMSYS's files.

`chosen` and `rejected` may have `chosen_score` and `rejected_score`. A completion may be an object with `text`,
and with `score` or `rank`.
"""

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from ..engine.records import Row
from ..settings.data import DataSettings
from . import readers
from .chat import messages_of
from .columns import PAIR_ALIASES, our_name, our_names, refuse_ambiguous, set_by_user
from .dialogue import text_of
from .faults import Fault
from .meanings import Meanings, is_missing
from .readers import Record


class _Known(NamedTuple):
    columns: list[set[str]]  # any of these sets
    read: Callable[[Row, Meanings], Record]


SHAPES = {
    "preferences": _Known([{"prompt", "chosen", "rejected"}], readers.preference),
    "transcripts": _Known([{"chosen", "rejected"}], readers.preference),
    "votes": _Known(
        [{"prompt", "response_a", "response_b", "preference"}]
        + [{"response_a", "response_b", *who} for who in (["preference"], ["votes"], ["won_a", "won_b", "won_tie"])],
        readers.votes,
    ),
    "completions": _Known([{"prompt", "completions"}], readers.completions),
    "labelled": _Known(
        [{*text, label} for label in ("label", "rating") for text in (["text"], ["prompt", "response"], ["messages"])],
        readers.labelled,
    ),
    "plain": _Known([{"text"}, {"messages"}], readers.plain),
    "prompts": _Known([{"prompt"}, {"messages"}, {"chosen"}, {"text"}], readers.question),
}
PREFERENCES = ("preferences", "transcripts", "votes", "completions")


class Shape(NamedTuple):
    """A recognised shape: its name, and the function from a row to its record. The function raises `Fault`."""

    name: str
    read: Callable[[Row], Record]


def recognise(columns: Collection[str], wanted: Sequence[str], meanings: Meanings) -> Shape | None:
    """Return the shape of rows with these columns, or None.

    Args:
        columns: the names in the file.
        wanted: names of shapes, the likeliest first. A shape that needs a column named in `data.columns` goes before all.
        meanings: the settings for columns, labels and preferences.

    Raises:
        Fault: a column can be read in two ways.
    """
    data = meanings.data
    known = set_by_user(data)
    for names in (our_names(data), our_names(data, PAIR_ALIASES)):
        found: dict[str, list[str]] = {}  # our name -> the columns that are read as it
        for column in columns:
            if ours := our_name(column, names):
                found.setdefault(ours, []).append(column)
        fitting = [(name, needed) for name in wanted for needed in SHAPES[name].columns if needed <= found.keys()]
        if fitting:
            break
    else:
        return None
    name, needed = min(fitting, key=lambda one: not one[1] & known)  # the first of those that fit equally
    refuse_ambiguous(needed, found, columns, known)

    def read(row: Row) -> Record:
        cells, taken = _by_our_names(row, names)
        if name == "votes":
            cells |= _decoded({ours: cells[ours] for ours in ("prompt", "response_a", "response_b") if ours in cells})
        _check_texts(cells, data)
        if taken.get("prompt") == "instruction" and not is_missing(cells.get("input")):  # Alpaca's prompts have two columns
            cells["instruction"] = text_of(cells["prompt"], "prompt")
            cells["prompt"] = f"{cells['instruction']}\n\n{text_of(cells['input'], 'input')}"
        record = SHAPES[name].read(cells, meanings)
        return record._replace(messages=messages_of(record[0], cells))

    return Shape(name, read)


def _by_our_names(row: Row, names: dict[str, str]) -> tuple[Row, dict[str, str]]:
    """Return the cells of a row by our names of the columns, and the file's name for each of ours."""
    cells: Row = {}
    taken: dict[str, str] = {}
    for column, value in row.items():
        ours = our_name(column, names)
        if ours == "votes":
            cells.setdefault(ours, []).append(value)
        elif ours and (ours not in cells or column == ours):
            cells[ours], taken[ours] = value, column.strip().casefold()
    return cells, taken


def _check_texts(cells: Row, data: DataSettings) -> None:
    """Check all texts in a row, also in lists and objects.

    Raises:
        Fault: a text is too long, or has a character that cannot be written or trained on.
    """
    for text in _texts_in(cells):
        if len(text) > data.max_characters:
            detail = f"{len(text)} characters, more than data.max_characters {data.max_characters}"
            raise Fault("more characters than data.max_characters", detail)
        if "\0" in text:
            raise Fault("contains a NUL byte")
        if not text.isascii() and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise Fault("contains half of a surrogate pair, which UTF-8 cannot encode")


def _texts_in(value: Any) -> Iterator[str]:
    rest = [value]
    while rest:  # not by recursion: rows can be nested more deeply than Python's limit
        one = rest.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, list | tuple | dict):
            rest.extend(one.values() if isinstance(one, dict) else one)


def _decoded(parts: Row) -> Row:
    """Decode the prompt and the responses if each is a JSON list of one text, as in LMSYS's files. Else return `parts`.

    Raises:
        Fault: they are lists of several turns, or of something else.
    """
    if not all(isinstance(value, str) and value.lstrip().startswith("[") for value in parts.values()):
        return parts
    try:
        lists = [json.loads(value) for value in parts.values()]
    except (ValueError, RecursionError):
        return parts
    if not all(len(one) == 1 and isinstance(one[0], str) for one in lists):
        raise Fault("a JSON list in prompt or responses does not contain exactly one text")
    return dict(zip(parts, (text for (text,) in lists), strict=True))
