"""The section `checkpoint_every`: the number of steps between two checkpoints."""

from typing import Annotated

from pydantic import Field

from ..engine.params import Settings

Every = Annotated[int, Field(ge=1)] | None


class CheckpointEvery(Settings):
    """Steps between two checkpoints of each stage. Empty: no checkpoints."""

    base: Every
    sft: Every
    reward: Every
    ppo: Every
