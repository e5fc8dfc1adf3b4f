"""What the stages that use a transformers Trainer share: its arguments, one progress bar, and a curve for `dvc plots`."""

import math
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from datasets import disable_progress_bars
from tqdm import tqdm
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback

from .records import Row
from .run import StageError


@contextmanager
def arguments(device: torch.device, seed: int, rows: int, settings: Any, report_to: str) -> Iterator[Row]:
    """Keyword arguments for a `TrainingArguments`, whose scratch folder lives as long as the block.

    Nothing is saved there: Trainer's own checkpoints hold pickles. About thirty points make the curve, each the mean
    since the last.

    Args:
        rows: rows in the training set, for the number of steps.
        settings: has `epochs`, `batch_size` and `learning_rate` (peak; 5 % warm-up, then linear to 0).
        report_to: "none", or where Trainer also reports to.
    """
    steps = math.ceil(rows / settings.batch_size * settings.epochs)
    os.environ.setdefault("TENSORBOARD_LOGGING_DIR", "runs")
    disable_progress_bars()  # the bar of `train` is enough
    with tempfile.TemporaryDirectory() as scratch:
        yield {
            "output_dir": scratch,
            "use_cpu": device.type == "cpu",
            "seed": seed,
            "per_device_train_batch_size": settings.batch_size,
            "num_train_epochs": settings.epochs,
            "learning_rate": settings.learning_rate,
            "lr_scheduler_type": "linear",
            "warmup_steps": math.ceil(0.05 * steps),
            "max_grad_norm": 1.0,
            "bf16": False,
            "gradient_checkpointing": False,
            "logging_steps": max(1, steps // 30),
            "report_to": report_to,
            "save_strategy": "no",
            "disable_tqdm": True,
            "dataloader_pin_memory": device.type == "cuda",
        }


def train(trainer: Trainer, name: str, columns: dict[str, str]) -> list[Row]:
    """Run `trainer` with a progress bar and return its curve.

    Args:
        columns: the Trainer's name of a figure -> the curve's name of it. `loss` is always there.

    Raises:
        StageError: a figure is not finite.
    """
    curve = _Curve(name, columns)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(curve)
    trainer.train()
    return curve.rows


class _Curve(TrainerCallback):
    def __init__(self, name: str, columns: dict[str, str]) -> None:
        self.name, self.columns = name, columns
        self.rows: list[Row] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar = tqdm(total=state.max_steps, desc=self.name, unit=" steps", disable=None)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.update()

    def on_log(self, args: Any, state: Any, control: Any, logs: Row | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:  # the Trainer's own summary of the run
            return
        row = {new: logs[old] for old, new in self.columns.items()}
        for figure, value in row.items():
            if not math.isfinite(value):
                raise StageError(f"step {state.global_step}: {figure} is {value}; lower {self.name}.learning_rate")
        self.rows.append({"step": state.global_step, **row})
        self.bar.set_postfix({figure: f"{value:.3f}" for figure, value in row.items()})

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.close()
