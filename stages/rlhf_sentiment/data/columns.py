"""Find out which column of a file is which: by our names, by usual other names, or by `data.columns`."""

import re
from collections.abc import Collection, Mapping
from typing import Any, get_args

from ..engine.messages import listed
from ..settings.data import Column, DataSettings
from .faults import Fault

# Usual names of columns, and our names for them. `data.columns` sets other names. Our names `input`, `votes` and `won_*` cannot
# be set there.
ALIASES = {
    "sentence": "text",
    "review": "text",
    "sentiment": "label",
    "stars": "rating",
    "instruction": "prompt",
    "question": "prompt",
    "input": "input",
    "completion": "response",
    "output": "response",
    "responses": "completions",
    "score_chosen": "chosen_score",
    "score_rejected": "rejected_score",
    "winner": "preference",
    "winner_model_a": "won_a",
    "winner_model_b": "won_b",
    "winner_tie": "won_tie",
} | {
    f"{word}{between}{side}": f"response_{ours}"
    for word in ("response", "answer", "output", "completion", "conversation")
    for between in ("", "_")
    for side, ours in ("aa", "bb", "1a", "2b")
}
# Names of the two sides of a pair. They are known only in a file that fits no shape without them, because the scores of a
# classifier have such names too.
PAIR_ALIASES = {
    "positive": "chosen",
    "preferred": "chosen",
    "response_chosen": "chosen",
    "negative": "rejected",
    "dispreferred": "rejected",
    "response_rejected": "rejected",
}
ANNOTATOR = re.compile(r"(annotator|rater|preference|vote)[ _-]?\d+")


def our_names(data: DataSettings, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return our name for each known name of a column.

    Args:
        data: `data.columns` goes before our own names and the aliases.
        more: aliases beside `ALIASES`, such as `PAIR_ALIASES`.
    """
    from_settings: dict[str, Any] = dict(data.columns)  # type: ignore[arg-type]
    usual = ALIASES | dict(more or {}) | {name: name for name in get_args(Column)}
    names = {name: ours for name, ours in usual.items() if ours not in from_settings}
    for ours, column in from_settings.items():
        if isinstance(column, list):
            names |= dict.fromkeys(map(str, column), "votes")
        elif column is not None:
            names[str(column)] = ours
    return names


def our_name(column: str, names: dict[str, str]) -> str | None:
    """Return our name for a column of a file, or None for an unknown column.

    Args:
        column: the name in the file.
        names: from `our_names`.
    """
    plain = column.strip().casefold()
    found = names.get(column) or names.get(plain)
    is_vote = found is None and names.get("preference") == "preference" and ANNOTATOR.fullmatch(plain)
    return "votes" if is_vote else found


def set_by_user(data: DataSettings) -> set[str]:
    """Return our names of the columns that `data.columns` sets."""
    return {"votes" if isinstance(column, list) else ours for ours, column in data.columns.items() if column is not None}


def refuse_ambiguous(needed: set[str], found: dict[str, list[str]], columns: Collection[str], known: set[str]) -> None:
    """Refuse a column that can be read in two ways.

    Args:
        needed: our names of the columns that a shape has.
        found: our name -> the columns of the file that are read as it.
        columns: all columns of the file.
        known: our names that `data.columns` sets.

    Raises:
        Fault: a needed column can be read in two ways.
    """
    plain = [column.strip().casefold() for column in columns]
    for ours in sorted(needed - known - {"votes"}):
        first, *others = found[ours]
        if others:
            several = listed(found[ours])
            raise Fault(f"several columns could be {ours}: {several}; choose one, such as data.columns: {{{ours}: {first}}}")
        zeroth = re.sub("1$", "0", first.strip())
        if ours == "response_a" and zeroth != first.strip() and zeroth.casefold() in plain:
            raise Fault(
                f"column {first} could be the first or the second response, because column {zeroth} exists; choose both, "
                f"such as data.columns: {{response_a: {zeroth}, response_b: {first}}}"
            )
    if "chosen" in needed - known and {"response_a", "response_b"} <= found.keys():
        (chosen,), (a, *_), (b, *_) = (found[ours] for ours in ("chosen", "response_a", "response_b"))
        raise Fault(
            f"column {chosen} could be a response, or a vote for {a} or {b}; choose data.columns: {{chosen: {chosen}}} or "
            f"{{preference: {chosen}}}"
        )
