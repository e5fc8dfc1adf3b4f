"""The section `judge`: the sentiment classifier that evaluates, and that nothing is trained against."""

from typing import Annotated, Literal

from pydantic import Field

from ..config import Settings


class JudgeSettings(Settings):
    source: Literal["labelled"]
    ngrams: Annotated[int, Field(ge=1, le=5)]
    min_count: Annotated[int, Field(ge=1, le=1000)]
    strength: Annotated[float, Field(gt=0, le=1e6)]
    cut_words: Annotated[int, Field(ge=1, le=10_000)]
