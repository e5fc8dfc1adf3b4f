"""The section `data`: the sources of text, how they are read, and how many rows are used."""

import itertools
import re
import unicodedata
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from ..engine.messages import listed, shown
from ..engine.params import Seed, Settings, matching, pin
from .counts import Asked, Count, EvenCount, counting
from .source import RAW, HubId, RawPath, inside_raw

# The counts of the section, with their values in the default params.yaml. Empty counts divide a source in these proportions.
PROPORTIONS = {
    "corpus_texts": 10_000,
    "sft_rows": 3000,
    "pairs": 3000,
    "pairs_held_out": 500,
    "labelled_texts": 6000,
    "labelled_held_out": 1000,
    "prompts_train": 4000,
    "prompts_validation": 128,
    "prompts_test": 600,
}
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]{1,9})?")
Meaning = Annotated[list[int | float | bool | str], Field(min_length=1)]
Column = Literal[
    "id", "text", "label", "rating", "prompt", "messages", "chosen", "rejected", "completions", "scores", "ranks",
    "response", "response_a", "response_b", "preference", "chosen_score", "rejected_score",
]  # fmt: skip


def _column(name: Any) -> Any:
    names = name if isinstance(name, list) and name else [name]
    if name is None or all(isinstance(one, str) or (type(one) is int and 1 <= one <= 10_000) for one in names):
        return name
    raise ValueError(
        f"should be the name of a column, its number (from 1) in a file without a header, or empty (got {shown(name)})"
    )


# The name of a column in a file, or its number in a file without a header. For votes also a list, with a column per annotator.
Named = Annotated[str | int | list[str | int] | None, PlainValidator(_column)]


def plainly(label: Any) -> str:
    """Return the plain form of a label: the same for 1, 1.0, True and "1", for Pos and pos, and for both forms of an accent."""
    text = str(int(label) if isinstance(label, bool) else label)
    text = unicodedata.normalize("NFC", text).strip().casefold()
    if not _NUMBER.fullmatch(text) or abs((number := Decimal(text)).adjusted()) > 40:
        return text
    return f"{number.normalize():f}" if number else "0"


def _source(source: str) -> str:
    if source not in ("synthetic", "hub", "auto"):
        try:
            return inside_raw(source)
        except ValueError:
            raise ValueError(
                f"should be synthetic, hub, auto, or a file, folder or glob below {RAW} (got {shown(source)})"
            ) from None
    return source


class HubSettings(Settings):
    """A hub data set, pinned to a revision, and its names of the splits."""

    dataset: HubId | None
    config: str | None
    folder: Annotated[str, matching(r"(?!.*\.\.)\w[\w./-]*", "a folder in the data set")] | None
    revision: str | None
    train: str
    validation: str | None
    test: str | None


class LabelSettings(Settings):
    """The labels of each sentiment."""

    negative: Meaning
    positive: Meaning


class PreferenceValues(Settings):
    """The votes for the first response, for the second response, and for neither."""

    a: Meaning
    b: Meaning
    tie: list[int | float | bool | str]


class DataSettings(Settings):
    """The section `data`."""

    source: Annotated[str, AfterValidator(_source)]
    hub: HubSettings
    columns: dict[Column, Named]
    labels: LabelSettings | None
    preference_values: PreferenceValues | None
    rating_negative: float
    rating_positive: float
    max_characters: Annotated[int, Field(ge=10, le=1_000_000_000)]
    preferred_for: Annotated[str, Field(min_length=1, max_length=200)]
    licence: Annotated[str, Field(min_length=1, max_length=200)] | None
    seed: Seed
    corpus: RawPath | None
    corpus_texts: Count
    sft_from: Literal["both", "chosen"]
    sft_rows: EvenCount
    pairs: Count
    pairs_held_out: Count
    max_uses: Annotated[int, Field(ge=1, le=1000)]
    disagreement: Annotated[float, Field(ge=0, lt=0.5)]
    flipped_pairs: Annotated[float, Field(ge=0, lt=0.5)]
    labelled_texts: Annotated[Asked, counting(4, even=True)]
    labelled_held_out: Annotated[Asked, counting(4, even=True)]
    prompts: RawPath | None
    prompt_words: Annotated[int, Field(ge=1, le=1000)]
    max_prompt_words: Annotated[int, Field(ge=1, le=1_000_000)] | None
    prompts_train: Count
    prompts_validation: Count
    prompts_test: Count
    near_duplicate: Annotated[float, Field(ge=0.1, le=1)]

    @property
    def named_columns(self) -> list[str | int]:
        """Every name or number of a column in `columns`."""
        named = (name if isinstance(name, list) else [name] for name in self.columns.values() if name is not None)
        return list(itertools.chain.from_iterable(named))

    @property
    def last_column(self) -> int:
        """The largest number of a column in `columns`, or 0 if columns have names."""
        return max((name for name in self.named_columns if isinstance(name, int)), default=0)

    def elsewhere(self) -> "DataSettings":
        """Return the settings for other sources than `source`. Their columns and values have the usual names."""
        return self.model_copy(update={"columns": {}, "labels": None, "preference_values": None})

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.source in ("hub", "auto"):
            if self.hub.dataset is None:
                raise ValueError(f"data.hub.dataset: should name a data set, since data.source is {self.source} (it is empty)")
            pin(self.hub.dataset, self.hub.revision, "data.hub", local=False)
        named = self.named_columns
        if len({type(name) for name in named}) > 1:
            raise ValueError("data.columns: use either names, for files with a header, or numbers, for files without a header")
        if twins := [name for number, name in enumerate(named) if name in named[:number]]:
            raise ValueError(f"data.columns: {shown(twins[0])} cannot be two columns")
        if self.last_column and self.source in ("hub", "auto"):
            raise ValueError("data.columns: use names, not numbers, for the columns of a hub data set")
        if self.rating_negative >= self.rating_positive:
            raise ValueError(
                f"data.rating_negative ({self.rating_negative:g}) must be below data.rating_positive ({self.rating_positive:g})"
            )
        for column, theirs in self.columns.items():
            if isinstance(theirs, list) and column != "preference":
                raise ValueError(
                    f"data.columns: {column} should be one column; only preference may be a list of the annotators' columns"
                )
        for name, values in (("labels", self.labels), ("preference_values", self.preference_values)):
            for (one, ones), (other, others) in itertools.combinations(dict(values or ()).items(), 2):
                if both := {*map(plainly, ones)} & {*map(plainly, others)}:
                    raise ValueError(f"data.{name}: {listed(sorted(both))} cannot mean both {one} and {other}")
        if self.source == "synthetic":
            if self.flipped_pairs:
                raise ValueError("data.flipped_pairs should be 0 with data.source synthetic; use data.disagreement instead")
            if self.corpus or self.prompts:
                raise ValueError("data.corpus and data.prompts should be empty with data.source synthetic")
            if faults := whole_numbers(self, *PROPORTIONS):
                raise ValueError(faults[0])
        return self


def whole_numbers(data: DataSettings, *names: str) -> list[str]:
    """Return a list of one message if counts of rows that the grammar writes are not whole numbers, else an empty list."""
    wrong = [f"data.{name}" for name in names if not isinstance(getattr(data, name), int)]
    return [f"{', '.join(wrong)}: should be whole numbers, since the grammar writes these rows"] if wrong else []
