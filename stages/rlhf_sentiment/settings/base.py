"""The section `base`: the language model with which the pipeline starts."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from ..engine.params import Settings, matching, pin

Rate = Annotated[float, Field(gt=0, le=0.1)]


class BaseSettings(Settings):
    """The section `base`."""

    model: Annotated[
        str,
        matching(
            r"scratch|models/pretrained/\w[\w.-]*|(?!models/pretrained)\w[\w.-]*/\w[\w.-]*",
            "scratch, models/pretrained/NAME or a hub id such as distilbert/distilgpt2",
        ),
    ]
    revision: str | None
    vocab_size: Annotated[int, Field(ge=260, le=100_000)]
    layers: Annotated[int, Field(ge=1, le=100)]
    width: Annotated[int, Field(ge=8, le=16_384)]
    heads: Annotated[int, Field(ge=1, le=256)]
    context: Annotated[int, Field(ge=8, le=131_072)]
    epochs: Annotated[float, Field(gt=0, le=1000)]
    batch_size: Annotated[int, Field(ge=1, le=65_536)]
    learning_rate: Rate
    adam_beta2: Annotated[float, Field(ge=0, lt=1)]

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        pin(self.model, self.revision, "base", self.model == "scratch" or self.model.startswith("models/pretrained/"))
        if self.width % self.heads:
            raise ValueError(f"base.width ({self.width}) must be a multiple of base.heads ({self.heads})")
        return self
