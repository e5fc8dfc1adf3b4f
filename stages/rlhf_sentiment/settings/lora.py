"""The key `lora` of the sections `sft`, `reward` and `ppo`: train an adapter in place of all weights."""

from typing import Annotated, Literal

from pydantic import Field

from ..engine.params import Settings


class Lora(Settings):
    """A low-rank adapter (LoRA; Hu et al. 2021, 2106.09685).

    A weight W of a product becomes W + alpha / rank * B A. W stays as it is. A and B learn, and B starts at 0.

    Attributes:
        rank: the rank of B A.
        alpha: scales B A.
        dropout: the share of the inputs of A that are set to 0 in training.
        target: all products of the trunk, or the ends of the names of some.
    """

    rank: Annotated[int, Field(ge=1, le=4096)]
    alpha: Annotated[int, Field(ge=1, le=65_536)]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    target: Literal["all"] | Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1)]
