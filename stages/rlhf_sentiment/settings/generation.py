"""The section `generation`: how `sample` and `compare` sample answers. PPO has settings of its own for its rollouts."""

from typing import Annotated

from pydantic import Field

from ..engine.params import Settings


class GenerationSettings(Settings):
    """The section `generation`."""

    max_new_tokens: Annotated[int, Field(ge=1, le=131_072)]
    temperature: Annotated[float, Field(ge=1e-3, le=10)]
    top_p: Annotated[float, Field(gt=0, le=1)]
    batch_size: Annotated[int, Field(ge=1, le=65_536)]
