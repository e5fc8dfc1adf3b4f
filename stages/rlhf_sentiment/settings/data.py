"""The section `data`: where text comes from and how much of it is used."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from ..config import Seed, Settings, matching, pin

Count = Annotated[int, Field(ge=1, le=10_000_000)]


class DataSettings(Settings):
    source: Annotated[
        str,
        matching(
            r"synthetic|data/raw/\w[\w.-]*|(?!data/raw)\w[\w.-]*/\w[\w.-]*",
            "synthetic, data/raw/NAME or a hub id such as stanfordnlp/imdb",
        ),
    ]
    revision: str | None
    seed: Seed
    prompt_words: Annotated[int, Field(ge=1, le=1000)]
    corpus_texts: Count
    sft_rows: Annotated[int, Field(ge=2, le=10_000_000, multiple_of=2)]
    pairs: Count
    pairs_held_out: Count
    disagreement: Annotated[float, Field(ge=0, lt=0.5)]
    labelled_texts: Annotated[int, Field(ge=4, le=10_000_000, multiple_of=2)]
    labelled_held_out: Annotated[int, Field(ge=4, le=10_000_000, multiple_of=2)]
    prompts_train: Count
    prompts_validation: Count
    prompts_test: Count
    near_duplicate: Annotated[float, Field(ge=0.1, le=1)]

    @model_validator(mode="after")
    def _hub_ids_are_pinned(self) -> Self:
        pin(self.source, self.revision, "data", self.source == "synthetic" or self.source.startswith("data/raw/"))
        return self
