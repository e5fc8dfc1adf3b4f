"""The section `checkpoint_every`: how often the training stages write checkpoints."""

from typing import Annotated

from pydantic import Field

from ..engine.params import Settings

Every = Annotated[int, Field(ge=1)] | None


class CheckpointEvery(Settings):
    base: Every
    sft: Every
    reward: Every
    ppo: Every
