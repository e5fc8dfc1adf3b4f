"""The section `judge`: the sentiment classifier that evaluates the models. No model is trained against it."""

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from ..engine.params import Settings, matching
from .source import HUB_ID, RAW, inside_raw


class JudgeSource(Settings):
    """The part of the section that `prepare` reads."""

    model_config = ConfigDict(extra="ignore")

    source: Annotated[
        str,
        AfterValidator(lambda source: inside_raw(source) if source.startswith(RAW) else source),
        matching(
            rf"data|synthetic|data/raw/.*|{HUB_ID}@\w[\w./-]*", f"data, synthetic, a path below {RAW} or OWNER/NAME@COMMIT"
        ),
    ]


class JudgeSettings(JudgeSource):
    """The section `judge`."""

    model_config = ConfigDict(extra="forbid")

    ngrams: Annotated[int, Field(ge=1, le=5)]
    min_count: Annotated[int, Field(ge=1, le=1000)]
    strength: Annotated[float, Field(gt=0, le=1e6)]
    cut_words: Annotated[int, Field(ge=1, le=10_000)]
