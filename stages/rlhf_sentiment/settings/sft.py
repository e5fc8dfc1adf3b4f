"""The section `sft`: supervised fine-tuning."""

from typing import Annotated

from pydantic import Field

from ..engine.arithmetic import Products
from .lora import Lora


class SFTSettings(Products):
    """The section `sft`."""

    epochs: Annotated[float, Field(gt=0, le=1000)]
    batch_size: Annotated[int, Field(ge=1, le=65_536)]
    learning_rate: Annotated[float, Field(gt=0, le=0.1)]
    max_length: Annotated[int, Field(ge=4, le=131_072)]
    cut: bool
    lora: Lora | None
