"""The section `data`: where text comes from, how it is read, and how much of it is used."""

from itertools import combinations
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from ..config import Seed, Settings, matching, pin
from .source import RAW, HubId, RawPath, inside_raw

Count = Annotated[int, Field(ge=1, le=10_000_000)]
EvenCount = Annotated[int, Field(ge=2, le=10_000_000, multiple_of=2)]
Meaning = Annotated[list[int | float | bool | str], Field(min_length=1)]
Column = Literal[
    "id", "text", "label", "rating", "prompt", "messages", "chosen", "rejected", "completions", "scores", "ranks",
    "response", "response_a", "response_b", "preference", "chosen_score", "rejected_score",
]  # fmt: skip
ColumnName = str | Annotated[int, Field(ge=1, le=10_000)]


def plainly(label: Any) -> str:
    """A label without what files do to it: 1, 1.0, True and "1" are one, and so are Pos and pos."""
    try:
        number = float(label)
        return str(int(number)) if number.is_integer() else str(number)
    except (TypeError, ValueError, OverflowError):
        return str(label).strip().casefold()


def _source(source: str) -> str:
    if source not in ("synthetic", "hub", "auto"):
        try:
            inside_raw(source)
        except ValueError:
            raise ValueError(
                f"should be synthetic, hub, auto, or a file, folder or glob below {RAW} (got {source!r})"
            ) from None
    return source


class HubSettings(Settings):
    dataset: HubId | None
    config: str | None
    folder: Annotated[str, matching(r"(?!.*\.\.)\w[\w./-]*", "a folder in the data set")] | None
    revision: str | None
    train: str
    validation: str | None
    test: str | None


class LabelSettings(Settings):
    negative: Meaning
    positive: Meaning


class PreferenceValues(Settings):
    a: Meaning
    b: Meaning
    tie: list[int | float | bool | str]


class DataSettings(Settings):
    source: Annotated[str, AfterValidator(_source)]
    hub: HubSettings
    columns: dict[Column, ColumnName | Annotated[list[ColumnName], Field(min_length=1)] | None]
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
    labelled_texts: Annotated[EvenCount, Field(ge=4)]
    labelled_held_out: Annotated[EvenCount, Field(ge=4)]
    prompts: RawPath | None
    prompt_words: Annotated[int, Field(ge=1, le=1000)]
    max_prompt_words: Annotated[int, Field(ge=1, le=1_000_000)] | None
    prompts_train: Count
    prompts_validation: Count
    prompts_test: Count
    near_duplicate: Annotated[float, Field(ge=0.1, le=1)]

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.source in ("hub", "auto"):
            if self.hub.dataset is None:
                raise ValueError(f"data.hub.dataset: name the data set that `data.source: {self.source}` loads")
            pin(self.hub.dataset, self.hub.revision, "data.hub", local=False)
        if self.rating_negative >= self.rating_positive:
            raise ValueError(
                f"data.rating_negative ({self.rating_negative:g}) must be below data.rating_positive ({self.rating_positive:g})"
            )
        for column, theirs in self.columns.items():
            if isinstance(theirs, list) and column != "preference":
                raise ValueError(
                    f"data.columns: {column} is one column; only preference can be a list, of the annotators' columns"
                )
        for name, told in (("labels", self.labels), ("preference_values", self.preference_values)):
            for (one, ones), (other, others) in combinations(dict(told or {}).items(), 2):
                if both := {*map(plainly, ones)} & {*map(plainly, others)}:
                    raise ValueError(f"data.{name}: {', '.join(sorted(both))} cannot mean both {one} and {other}")
        if self.source == "synthetic" and (self.corpus or self.prompts):
            raise ValueError("data.corpus and data.prompts go with other sources than synthetic; set them to null")
        return self
