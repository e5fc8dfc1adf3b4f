"""The setting `report_to`: a tracker to which the training stages report, in addition to their own metrics and plots."""

from importlib.util import find_spec
from typing import Annotated, Literal

from pydantic import AfterValidator


def _installed(name: str) -> str:
    if name != "none" and find_spec(name) is None:
        raise ValueError(f"{name} is not installed; run `pip install {name}`, or set report_to: none")
    return name


ReportTo = Annotated[Literal["none", "tensorboard", "wandb", "trackio"], AfterValidator(_installed)]
