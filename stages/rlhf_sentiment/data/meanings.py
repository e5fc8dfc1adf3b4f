"""What labels, ratings and preference values mean, and how often a source has each.

A value means something where the settings say so, or where it can be read in one way only. Any other value stops the stage
once its file has been read, and before anything is made of it: a third class must not be taken for one of two.
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

Words = Mapping[str, int]  # a plain value -> what it means
# What is understood without a setting. The values of a source are of one of these: 0 beside "pos" may be neutral.
LABELS: Sequence[Words] = (
    {"0": 0, "false": 0, "1": 1, "true": 1},
    {"neg": 0, "negative": 0, "pos": 1, "positive": 1},
)
VOTES: Sequence[Words] = ({"a": 1, "b": -1, "tie": 0},)
HIDDEN = "-1"  # what GLUE and others write where the labels of a test split are not told
FEW = 0.05  # share of the ratings on one side, below which there is a warning

_SIDE = re.compile(r"(?:response|model|answer|assistant|completion|conversation)?[ _-]?([ab])")
_TIE = re.compile(r"tie( ?\(.*\))?")  # LMSYS also has "tie (bothbad)"
_LISTED = 8  # values in a message
_MOST = 1000  # different values of a column that are counted
_LONGEST = 200  # characters of a value by which it is known


class Tally:
    """How often each value of a column stands in the file that is read (`here`) and in all files so far (`all`)."""

    def __init__(self) -> None:
        self.here: Counter[str] = Counter()
        self.all: Counter[str] = Counter()
        self._spelled: dict[str, str] = {}  # plain value -> as a file has it

    def add(self, plain: str, value: Any) -> None:
        """Count a value, unless there are too many different ones."""
        if plain in self._spelled or not self.is_full():
            self._spelled.setdefault(plain, shown(value))
            self.here[plain] += 1
            self.all[plain] += 1

    def is_full(self) -> bool:
        """There are so many different values that they are no classes."""
        return len(self._spelled) >= _MOST

    def listing(self, values: Collection[str]) -> str:
        """Some of the values, and how often they stand there: numbers in their order, words from the most frequent on."""
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
    """The values of a column of classes: what each means, and how often each is there."""

    def __init__(self, what: str, setting: str, told: Words | None, usual: Sequence[Words], certain: str, advice: str) -> None:
        """
        Args:
            what: what a value is called in messages.
            setting: the setting that can say what values mean.
            told: what it says, if anything.
            usual: the vocabularies that are understood where it says nothing.
            certain: what they are, in messages.
            advice: what to do about other values.
        """
        super().__init__()
        self.what, self.setting, self.told, self.usual = what, setting, told, usual
        self.certain, self.advice = certain, advice
        self._known = told if told is not None else {word: code for words in usual for word, code in words.items()}

    def meaning(self, plain: str, value: Any) -> int:
        """What a value means.

        Raises:
            Fault: nothing says what it means.
        """
        if plain in self._known:
            return self._known[plain]
        if self.told is None:
            raise Fault(f"the {self.what} is none that is understood", f"{self.what} is {shown(value)}: not understood")
        raise Fault(
            f"{self.setting} does not name the {self.what}", f"{self.what} is {shown(value)}: {self.setting} does not name it"
        )

    def check(self, where: str, values: Collection[str]) -> None:
        """
        Raises:
            StageError: nothing says what some of these values mean, or they are of two vocabularies.
        """
        if self.told is None and not any(set(values) <= words.keys() for words in self.usual):
            certain = f"only {self.certain} need no telling"
            raise StageError(f"{where}: its {self.what}s are {self.listing(values)}; {certain}: {self.advice}")

    def end_of_file(self, file: str) -> None:
        """
        Raises:
            StageError: as `check`, of the file's values.
        """
        self.check(file, self.here)
        unnamed = [value for value in self.here if self.told is not None and value not in self.told]
        if unnamed:
            warn("prepare", f"{file}: {self.setting} leaves out {self.listing(unnamed)}")
        self.here.clear()

    def end_of_source(self, where: str) -> None:
        """
        Raises:
            StageError: as `check`, of all files' values together.
        """
        self.check(where, self.all)
        unseen = [value for value in self.told or () if self.all and value not in self.all]
        if unseen:
            warn("prepare", f"{self.setting} names {', '.join(unseen)}, which no row of {where} has")


class Meanings:
    """What the labels, ratings and preferences of a source mean, file by file."""

    def __init__(self, data: DataSettings, setting: str) -> None:
        """
        Args:
            data: says what values mean.
            setting: what names the source.
        """
        self.data = data
        labels, votes = data.labels, data.preference_values
        advice = (
            "say which mean negative and which positive, such as data.labels: {negative: [1, 2], positive: [4, 5]}, or take a "
            "scale for ratings: data.columns: {rating: ITS NAME}, with data.rating_negative and data.rating_positive"
        )
        if setting != "data.source":
            advice = f"write 0 and 1 in their place (data.labels is about data.source, not {setting})"
        self.labels = Values(
            "label", "data.labels", _told({0: labels.negative, 1: labels.positive}) if labels else None, LABELS,
            "0 and 1, or words such as neg and pos,", advice,
        )  # fmt: skip
        self.votes = Values(
            "preference", "data.preference_values", _told({1: votes.a, -1: votes.b, 0: votes.tie}) if votes else None, VOTES,
            "a, b and tie", "say which mean the first response, the second and neither, such as data.preference_values: "
            "{a: [1], b: [2], tie: [0]}",
        )  # fmt: skip
        self.ratings = Tally()
        self._sides: Counter[int] = Counter()
        self._rated: Counter[int] = Counter()

    def label(self, value: Any) -> int:
        """1 for a positive label, 0 for a negative one.

        Raises:
            Fault: it is missing, or nothing says what it means.
        """
        plain = _plain(value, "label")
        self.labels.add(plain, value)
        side = self.labels.meaning(plain, value)
        self._sides[side] += 1
        return side

    def rating(self, value: Any) -> int:
        """1 for a rating of at least `data.rating_positive`, 0 for one of at most `data.rating_negative`.

        Raises:
            Fault: it is no number, or between the two.
        """
        number = number_of(value)
        if number is None:
            raise Fault("the rating is no number", f"rating is {shown(value)}, not a number")
        self.ratings.add(plainly(number), value)
        low, high = self.data.rating_negative, self.data.rating_positive
        if low < number < high:
            detail = f"rating is {number:g}: neither at most {low:g} nor at least {high:g}"
            raise Fault("the rating lies between the limits", detail)
        self._sides[int(number >= high)] += 1
        self._rated[int(number >= high)] += 1
        return int(number >= high)

    def margin(self, votes: Sequence[Any]) -> int:
        """How many votes are for the first response, less those for the second. Missing ones do not count.

        Raises:
            Fault: there is none, or nothing says what one means.
        """
        given = [(_plain(vote, "preference"), vote) for vote in votes if not is_missing(vote)]
        if not given:
            raise Fault("no preference")
        if self.votes.told is None:
            given = [(_usual(plain), vote) for plain, vote in given]
        for plain, vote in given:
            self.votes.add(plain, vote)
        return sum(self.votes.meaning(plain, vote) for plain, vote in given)

    def end_of_file(self, file: str) -> None:
        """
        Raises:
            StageError: nothing says what some values of the file mean.
        """
        if self.labels.told is None and self.labels.here.keys() == {HIDDEN}:
            raise StageError(
                f"{file}: each label is -1 ({self.labels.here[HIDDEN]:,}x), as where they are hidden; leave this file or "
                f"split out, or {self.labels.advice}"
            )
        self.labels.end_of_file(file)
        self.votes.end_of_file(file)
        self.ratings.here.clear()

    def end_of_source(self, where: str) -> None:
        """
        Raises:
            StageError: the files' values are of two vocabularies, or their labels and ratings of one class only.
        """
        self.labels.end_of_source(where)
        self.votes.end_of_source(where)
        low, high = self.data.rating_negative, self.data.rating_positive
        for side, name, limit in ((0, "negative", f"at most data.rating_negative {low:g}"),
                                  (1, "positive", f"at least data.rating_positive {high:g}")):  # fmt: skip
            found = f"its ratings are {self.ratings.listing(self.ratings.all)}"
            if not self._sides[side] and self._rated:
                raise StageError(f"{where}: no rating is {limit}: {found}; set both limits to their scale")
            if not self._sides[side] and self._sides:
                raise StageError(
                    f"{where}: no label is {name}: its labels are {self.labels.listing(self.labels.all)}; {self.labels.advice}"
                )
            if 0 < self._rated.total() * FEW > self._rated[side]:
                few = f"only {self._rated[side]:,} of {self._rated.total():,} ratings are {limit}"
                warn("prepare", f"{where}: {few}: {found}; set both limits where they do not fit the scale")


def number_of(value: Any) -> float | None:
    """A finite number, or a text that is one, as a number; anything else as None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def is_missing(value: Any) -> bool:
    """Nothing stands there: null, NaN or white space."""
    return value is None or (isinstance(value, str | float) and plainly(value) in ("", "nan"))


def _plain(value: Any, what: str) -> str:
    if is_missing(value):
        raise Fault(f"no {what}")
    if isinstance(value, list | dict | tuple | bytes):
        raise Fault(f"the {what} is no single value", f"{what} is {shown(value)}: should be a number or a word")
    return plainly(value)[:_LONGEST]


def _usual(vote: str) -> str:
    """The usual word for a vote: a for model_a, tie for "tie (bothbad)". A number stays: it may count from 0 or from 1."""
    side = _SIDE.fullmatch(vote)
    return side[1] if side else "tie" if _TIE.fullmatch(vote) else vote


def _told(meanings: Mapping[int, Sequence[Any]]) -> Words:
    return {plainly(value): code for code, values in meanings.items() for value in values}
