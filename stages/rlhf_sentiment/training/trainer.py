"""Run transformers' Trainer for base, sft and reward: arguments, checkpoints, progress, and a curve for `dvc plots`."""

import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from safetensors.torch import save_file
from transformers import Trainer, TrainerCallback
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import LengthGroupedSampler, get_length_grouped_indices, safe_globals

from ..engine import tracking
from ..engine.errors import StageError
from ..engine.progress import LiveTable, progress_bar
from ..engine.ranks import shards, steps_begin
from ..engine.records import Row
from ..engine.stopping import patient
from ..models.adapters import adapter_layers
from ..models.exchange import stops
from .checkpoints import Checkpoints
from .shares import sharded, share_batches

_POINTS = 30  # about how many points a curve has


@contextmanager
def arguments(device: torch.device, seed: int, rows: int, settings: Any, dtype: str = "float32") -> Iterator[Row]:
    """Give keyword arguments for a `TrainingArguments`. Its scratch folder exists as long as the block runs.

    The Trainer logs every step, because its sums between two logs are not part of a checkpoint.

    Args:
        device: where the model is.
        rows: the number of rows in the training set, from which the number of steps follows.
        seed: decides the order of the rows.
        settings: a section with `epochs`, `batch_size` and `learning_rate`. The rate rises over the first 5 % of the steps,
            and then falls linearly to 0.
        dtype: of matrix products, float32 or bfloat16.
    """
    steps = math.ceil(rows / settings.batch_size * settings.epochs)
    for name in [name for name in os.environ if name.startswith("ACCELERATE_")]:  # they would change precision and batches
        del os.environ[name]
    disable_progress_bars()  # `train` has its own bar
    with tempfile.TemporaryDirectory() as scratch:
        yield {
            "output_dir": scratch,
            "use_cpu": device.type == "cpu",
            "seed": seed,
            "per_device_train_batch_size": settings.batch_size,  # of all ranks together (shares.py)
            "num_train_epochs": settings.epochs,
            "learning_rate": settings.learning_rate,
            "lr_scheduler_type": "linear",
            "warmup_steps": math.ceil(0.05 * steps),
            "max_grad_norm": 1.0,
            "bf16": dtype == "bfloat16",
            "gradient_checkpointing": False,
            "logging_steps": 1,
            "logging_nan_inf_filter": False,  # otherwise the Trainer hides a loss that is not finite
            "report_to": "none",  # `_Watch` reports
            "save_strategy": "no",
            "disable_tqdm": True,
            "ddp_find_unused_parameters": False,
            "ddp_broadcast_buffers": False,
            "dataloader_pin_memory": device.type == "cuda",
        }


def train(trainer: Trainer, kept: Checkpoints, columns: dict[str, str]) -> list[Row]:
    """Run `trainer` from its last checkpoint and return its curve of about thirty points.

    Each point is the mean over the steps since the point before. Rows of similar length share a batch.

    Args:
        trainer: not yet run.
        kept: the checkpoints of this run.
        columns: the Trainer's name of a figure -> the name in the curve. `loss` is required.

    Raises:
        StageError: a figure or the gradient is not finite; a checkpoint cannot be written.
        Stopped: a signal came. The checkpoint is written first.
    """
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(_Watch(kept, columns))
    args, lengths = trainer.args, _lengths(trainer.train_dataset)
    steps = math.ceil(len(lengths) / args.train_batch_size * args.num_train_epochs)
    together = max(1, steps // _POINTS)
    sampler = ByLength(lengths, args.train_batch_size, args.seed, together)
    trainer._get_train_sampler = lambda _=None: sampler
    share_batches(trainer, sampler, kept.stage)
    unmasked = trainer.model.register_forward_pre_hook(_without_mask, with_kwargs=True)

    def save(model: Any, trial: Any) -> None:
        step = trainer.state.global_step
        with kept.writing(step) as folder:
            trainer.args.output_dir = str(folder)
            Trainer._save_checkpoint(trainer, model, trial)  # trl's own method also writes a model card
            inner = folder / f"checkpoint-{step}"
            (inner / "training_args.bin").unlink(missing_ok=True)  # a pickle that no program here reads
            for own in inner.glob("rng_state_*.pth"):  # of rank 0; another number of ranks may resume
                own.rename(inner / "rng_state.pth")

    trainer._save_checkpoint = save
    if adapter_layers(trainer.model):
        trainer.save_model = _save_what_learns(trainer.model)
    if shards():
        kept.every = None  # a checkpoint of the Trainer holds what one rank holds
    with patient(), sharded(trainer, kept.stage):
        trainer.train(resume_from_checkpoint=kept.newest(_readable))
    unmasked.remove()
    logs = [row for row in trainer.state.log_history if "loss" in row]
    curve = []
    for start in range(0, len(logs) - together + 1, together):
        rows = logs[start : start + together]
        means = {new: sum(row[old] for row in rows) / together for old, new in columns.items()}
        curve.append({"step": rows[-1]["step"], **means})
    return curve


def _save_what_learns(model: Any) -> Callable[..., None]:
    """Return what writes the weights that learn to a checkpoint: an adapter, and the head of a reward model."""

    def save(folder: str, **_: Any) -> None:
        Path(folder).mkdir()
        learned = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
        save_file(learned, Path(folder) / "model.safetensors", {"format": "pt"})

    return save


def _readable(folder: Path) -> str:
    """Return the Trainer's own folder in a checkpoint, after a check that no file in it can run code.

    Raises:
        pickle.UnpicklingError: a file holds something other than tensors and plain values.
    """
    (inner,) = folder.glob("checkpoint-*")
    with safe_globals():  # numpy's random state
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            torch.load(inner / name, map_location="cpu", weights_only=True)
    return str(inner)


class _Watch(TrainerCallback):
    """After each step: check the figures, report them, show progress, and ask for a checkpoint where one is due."""

    def __init__(self, kept: Checkpoints, columns: dict[str, str]) -> None:
        self.kept, self.columns = kept, columns

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Open the progress bar and the live table."""
        steps_begin()
        tracking.begin()
        self.live = LiveTable(self.kept.stage, [self._row(logs) for logs in state.log_history if "loss" in logs])
        self.bar = progress_bar(total=state.max_steps, initial=state.global_step, desc=self.kept.stage, unit=" steps")

    def on_log(self, args: Any, state: Any, control: Any, logs: Row | None = None, **_: Any) -> None:
        """Check the figures of a step, and decide on a checkpoint and on a stop.

        Raises:
            StageError: a figure or the gradient is not finite.
        """
        if not logs or "loss" not in logs:  # the Trainer's own summary of the run
            return
        for figure in (*self.columns, "grad_norm"):
            if not math.isfinite(logs[figure]):
                name = self.columns.get(figure, figure)
                raise StageError(f"step {state.global_step}: {name} is {logs[figure]}; lower {self.kept.stage}.learning_rate")
        tracking.log({f"train/{name}": value for name, value in logs.items()}, state.global_step)
        self.live.add(self._row(state.log_history[-1]))
        self.bar.set_postfix({new: f"{logs[old]:.3f}" for old, new in self.columns.items()}, refresh=False)
        self.bar.update()
        control.should_training_stop |= stops()  # first, so that the checkpoint of a stop is not missed
        control.should_save = self.kept.due(state.global_step, state.max_steps)

    def _row(self, logs: Row) -> Row:
        """Return the figures of a step under their names in the curve."""
        return {"step": logs["step"], **{new: logs[old] for old, new in self.columns.items()}}

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Close the progress bar."""
        self.bar.close()


class ByLength(LengthGroupedSampler):
    """Batches of texts of similar length, in an order that only seed and epoch decide.

    The rows of `together` batches are sorted by length. A point of the curve is the mean of so many steps, so each point has
    long and short texts. The loss of the two differs.

    A run that resumes from a checkpoint therefore takes the same batches. The Trainer's own order depends on all random
    numbers that were drawn before.
    """

    def __init__(self, lengths: list[int], batch_size: int, seed: int, together: int) -> None:
        super().__init__(batch_size, lengths=lengths, generator=torch.Generator())
        self.seed, self.epoch, self.together = seed, 0, together

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch. The Trainer calls this before each pass."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.seed + self.epoch)
        return iter(get_length_grouped_indices(self.lengths, self.batch_size, self.together, self.generator))


def _lengths(rows: Dataset) -> list[int]:
    """Return the tokens of each row. A row of preferences has those of its longer side."""
    sides = [rows[name] for name in ("input_ids", "chosen_ids", "rejected_ids") if name in rows.column_names]
    return [max(map(len, row)) for row in zip(*sides, strict=True)]


def _without_mask(model: Any, args: Any, kwargs: Row) -> tuple[Any, Row]:
    """Take the attention mask out of a call. Attention is then causal only, which takes half of the time.

    The padding of a training batch is on the right. So no token reads it, and its own outputs have no part in the loss.
    """
    return args, {name: value for name, value in kwargs.items() if name != "attention_mask"}
