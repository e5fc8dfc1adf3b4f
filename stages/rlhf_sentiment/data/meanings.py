"""Interpret labels, ratings and preference values, and count how often a source has each.

The settings define the meaning of a value, or the value is one of the usual words. Any other value stops the stage after its
file has been read, and before any table is made. So a third class is never taken for one of two classes.
"""

import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..engine.errors import StageError
from ..engine.messages import shown, warn
from ..settings.data import DataSettings, plainly
from .faults import Fault

Words = Mapping[str, int]  # a plain value -> its meaning
# The usual words, which need no setting. A source uses one of the vocabularies: 0 beside "pos" may be neutral.
LABELS: Sequence[Words] = (
    {"0": 0, "false": 0, "1": 1, "true": 1},
    {"neg": 0, "negative": 0, "pos": 1, "positive": 1},
)
VOTES: Sequence[Words] = ({"a": 1, "b": -1, "tie": 0},)
HIDDEN = "-1"  # the label in GLUE and others if the labels of a test split are secret
FEW = 0.05  # a smaller share of the ratings on one side causes a warning

_SIDE = re.compile(r"(?:response|model|answer|assistant|completion|conversation)?[ _-]?([ab])")
_TIE = re.compile(r"tie( ?\(.*\))?")  # LMSYS also has "tie (bothbad)"
_LISTED = 8  # values in a message
_MOST = 1000  # different values that are counted
_LONGEST = 200  # characters of a value that are compared


class Tally:
    """The number of times that each value of a column occurs in the current file (`here`) and in all files so far (`all`)."""

    def __init__(self) -> None:
        self.here: Counter[str] = Counter()
        self.all: Counter[str] = Counter()
        self._spelled: dict[str, str] = {}  # plain value -> its spelling in a file

    def add(self, plain: str, value: Any) -> None:
        """Count a value, unless there are too many different values."""
        if plain in self._spelled or not self.is_full():
            self._spelled.setdefault(plain, shown(value))
            self.here[plain] += 1
            self.all[plain] += 1

    def is_full(self) -> bool:
        """Return whether there are too many different values for classes."""
        return len(self._spelled) >= _MOST

    def listing(self, values: Collection[str]) -> str:
        """List some of the values and their counts: numbers in their order, words by frequency."""
        counts = {value: self.here[value] or self.all[value] for value in values}
        numbers = {value: number_of(value) for value in counts}
        if None in numbers.values():
            order = sorted(counts, key=lambda value: -counts[value])
        else:
            order = sorted(counts, key=lambda value: numbers[value] or 0)
        few = ", ".join(f"{self._spelled[value]} ({counts[value]:,}x)" for value in order[:_LISTED])
        others = f" and {'at least ' * self.is_full()}{len(order) - _LISTED:,} more"
        return few + (others if len(order) > _LISTED else "")


class Values(Tally):
    """The values of a column of classes: the meaning of each, and its counts."""

    def __init__(self, what: str, setting: str, defined: Words | None, usual: Sequence[Words], known: str, advice: str) -> None:
        """Start with no values.

        Args:
            what: the name of a value in messages, such as label.
            setting: the setting that can define meanings.
            defined: the meanings that the setting defines, if any.
            usual: the vocabularies that are known without the setting.
            known: the vocabularies, in words for messages.
            advice: what to do about other values, for messages.
        """
        super().__init__()
        self.what, self.setting, self.defined, self.usual = what, setting, defined, usual
        self.known, self.advice = known, advice
        self._codes = defined if defined is not None else {word: code for words in usual for word, code in words.items()}

    def meaning(self, plain: str, value: Any) -> int:
        """Return the meaning of a value.

        Raises:
            Fault: the meaning is unknown.
        """
        if plain in self._codes:
            return self._codes[plain]
        if self.defined is None:
            raise Fault(f"the {self.what} has no known meaning", f"{self.what} is {shown(value)}, which has no known meaning")
        raise Fault(f"the {self.what} is not in {self.setting}", f"{self.what} is {shown(value)}, not in {self.setting}")

    def check(self, where: str, values: Collection[str]) -> None:
        """Refuse values of unknown meaning.

        Raises:
            StageError: the meaning of some values is unknown, or the values mix two vocabularies.
        """
        if self.defined is None and not any(set(values) <= words.keys() for words in self.usual):
            known = f"only {self.known} are known without a setting"
            raise StageError(f"{where}: the {self.what}s are {self.listing(values)}; {known}; {self.advice}")

    def end_of_file(self, file: str) -> None:
        """Check the values of a file.

        Raises:
            StageError: as `check`.
        """
        self.check(file, self.here)
        unnamed = [value for value in self.here if self.defined is not None and value not in self.defined]
        if unnamed:
            warn("prepare", f"{file}: rows are rejected, because {self.setting} does not contain {self.listing(unnamed)}")
        self.here.clear()

    def end_of_source(self, where: str) -> None:
        """Check the values of all files together.

        Raises:
            StageError: as `check`.
        """
        self.check(where, self.all)
        unseen = [value for value in self.defined or () if self.all and value not in self.all]
        if unseen:
            warn("prepare", f"{self.setting} contains values that no row of {where} has: {', '.join(unseen)}")


# The settings for columns, labels and preferences define those of `data.source`, and of the argument `path` in Python.
NAMED = ("data.source", "path")


class Meanings:
    """The meanings of the labels, ratings and preferences of a source, file by file."""

    def __init__(self, data: DataSettings, setting: str) -> None:
        """Start with no values.

        Args:
            data: the settings that define meanings.
            setting: the setting or the argument that names the source.
        """
        self.data = data
        labels, votes = data.labels, data.preference_values
        advice = (
            "define the labels, such as data.labels: {negative: [1, 2], positive: [4, 5]}; if they are ratings, set "
            "data.columns: {rating: COLUMN}, data.rating_negative and data.rating_positive instead"
        )
        if setting not in NAMED:
            advice = f"write 0 and 1 instead (data.labels applies to data.source, not to {setting})"
        self.labels = Values(
            "label", "data.labels", _defined({0: labels.negative, 1: labels.positive}) if labels else None, LABELS,
            "0 and 1, or words such as neg and pos,", advice,
        )  # fmt: skip
        self.votes = Values(
            "preference", "data.preference_values", _defined({1: votes.a, -1: votes.b, 0: votes.tie}) if votes else None, VOTES,
            "a, b and tie", "define the values for the first response, the second response and a tie, such as "
            "data.preference_values: {a: [1], b: [2], tie: [0]}",
        )  # fmt: skip
        self.ratings = Tally()
        self._sides: Counter[int] = Counter()
        self._rated: Counter[int] = Counter()

    def label(self, value: Any) -> int:
        """Return 1 for a positive label, 0 for a negative one.

        Raises:
            Fault: the label is missing, or its meaning is unknown.
        """
        plain = _plain(value, "label")
        self.labels.add(plain, value)
        side = self.labels.meaning(plain, value)
        self._sides[side] += 1
        return side

    def rating(self, value: Any) -> int:
        """Return 1 for a rating of at least `data.rating_positive`, 0 for a rating of at most `data.rating_negative`.

        Raises:
            Fault: the rating is not a number, or is between the two limits.
        """
        number = number_of(value)
        if number is None:
            raise Fault("the rating is not a number", f"rating is {shown(value)}, not a number")
        self.ratings.add(plainly(number), value)
        low, high = self.data.rating_negative, self.data.rating_positive
        if low < number < high:
            detail = f"rating is {number:g}, between data.rating_negative {low:g} and data.rating_positive {high:g}"
            raise Fault("the rating is between data.rating_negative and data.rating_positive", detail)
        self._sides[int(number >= high)] += 1
        self._rated[int(number >= high)] += 1
        return int(number >= high)

    def margin(self, votes: Sequence[Any]) -> int:
        """Return the number of votes for the first response minus that for the second. Missing votes do not count.

        Raises:
            Fault: there is no vote, or the meaning of a vote is unknown.
        """
        given = [(_plain(vote, "preference"), vote) for vote in votes if not is_missing(vote)]
        if not given:
            raise Fault("no preference")
        if self.votes.defined is None:
            given = [(_usual(plain), vote) for plain, vote in given]
        for plain, vote in given:
            self.votes.add(plain, vote)
        return sum(self.votes.meaning(plain, vote) for plain, vote in given)

    def end_of_file(self, file: str) -> None:
        """Check the values of a file.

        Raises:
            StageError: the meaning of some values is unknown.
        """
        if self.labels.defined is None and self.labels.here.keys() == {HIDDEN}:
            raise StageError(
                f"{file}: every label is -1 ({self.labels.here[HIDDEN]:,}x), so the labels are probably hidden; leave out "
                f"this file or split, or {self.labels.advice}"
            )
        self.labels.end_of_file(file)
        self.votes.end_of_file(file)
        self.ratings.here.clear()

    def end_of_source(self, where: str) -> None:
        """Check the values of all files together.

        Raises:
            StageError: the values mix two vocabularies, or all labels and ratings are of one class.
        """
        self.labels.end_of_source(where)
        self.votes.end_of_source(where)
        low, high = self.data.rating_negative, self.data.rating_positive
        for side, name, limit in ((0, "negative", f"at most data.rating_negative {low:g}"),
                                  (1, "positive", f"at least data.rating_positive {high:g}")):  # fmt: skip
            found = f"the ratings are {self.ratings.listing(self.ratings.all)}"
            if not self._sides[side] and self._rated:
                raise StageError(f"{where}: no rating is {limit}; {found}; set both limits to fit the scale")
            if not self._sides[side] and self._sides:
                raise StageError(
                    f"{where}: no label is {name}; the labels are {self.labels.listing(self.labels.all)}; {self.labels.advice}"
                )
            if 0 < self._rated.total() * FEW > self._rated[side]:
                few = f"only {self._rated[side]:,} of {self._rated.total():,} ratings are {limit}"
                warn("prepare", f"{where}: {few}; {found}; change both limits if they do not fit the scale")


def number_of(value: Any) -> float | None:
    """Return a finite number, or a text that is one, as a number. Return None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def is_missing(value: Any) -> bool:
    """Return whether a value is missing: null, NaN or white space."""
    return value is None or (isinstance(value, str | float) and plainly(value) in ("", "nan"))


def _plain(value: Any, what: str) -> str:
    if is_missing(value):
        raise Fault(f"no {what}")
    if isinstance(value, list | dict | tuple | bytes):
        raise Fault(f"the {what} is not a number or a word", f"{what} is {shown(value)}, not a number or a word")
    return plainly(value)[:_LONGEST]


def _usual(vote: str) -> str:
    """Return the usual word for a vote: a for model_a, tie for "tie (bothbad)". A number stays, since it may count from 0."""
    side = _SIDE.fullmatch(vote)
    return side[1] if side else "tie" if _TIE.fullmatch(vote) else vote


def _defined(meanings: Mapping[int, Sequence[Any]]) -> Words:
    return {plainly(value): code for code, values in meanings.items() for value in values}
