"""The setting `report_to`: where else the training stages report, beside their own metrics and plots."""

from typing import Literal

ReportTo = Literal["none", "tensorboard", "wandb", "trackio"]
