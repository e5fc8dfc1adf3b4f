"""The section `evaluate`: what is measured on the samples, and how sure to be."""

from typing import Annotated, Literal

from pydantic import Field

from ..config import Settings


class EvaluateSettings(Settings):
    num_samples: Annotated[int, Field(ge=10, le=1_000_000)]
    judged: Literal["response", "prompt and response"]
    confidence: Annotated[float, Field(gt=0.5, lt=1)]
    resamples: Annotated[int, Field(ge=99, le=100_000)]
    shown_samples: Annotated[int, Field(ge=1, le=100)]
    listed_prompts: Annotated[int, Field(ge=1, le=1_000_000)]
