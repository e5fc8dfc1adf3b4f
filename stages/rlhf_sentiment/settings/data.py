"""The section `data`: where text comes from and how much of it is used."""

from typing import Annotated, Literal

from pydantic import Field

from ..config import Seed, Settings

Count = Annotated[int, Field(ge=1, le=10_000_000)]


class DataSettings(Settings):
    source: Literal["synthetic"]
    seed: Seed
    corpus_texts: Count
    sft_rows: Annotated[int, Field(ge=2, le=10_000_000, multiple_of=2)]
    pairs: Count
    pairs_held_out: Count
    disagreement: Annotated[float, Field(ge=0, lt=0.5)]
    labelled_texts: Annotated[int, Field(ge=4, le=10_000_000)]
    labelled_held_out: Annotated[int, Field(ge=4, le=10_000_000)]
    prompts_train: Count
    prompts_validation: Count
    prompts_test: Count
    near_duplicate: Annotated[float, Field(ge=0.1, le=1)]
