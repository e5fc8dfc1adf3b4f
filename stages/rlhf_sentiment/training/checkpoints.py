"""Checkpoints: a training run that was killed at any moment goes on from its last good one, to the bytes it would have had.

    .checkpoints/STAGE/KEY/000000050/      all that the run needs to go on from step 50
    .checkpoints/STAGE/KEY/000000050/checksums.json
    .checkpoints/STAGE/KEY/outs.json       the stage is done: what it wrote, until DVC has recorded that

They lie outside DVC's outs, which DVC deletes before a run, and in the main repository for queued experiments too. KEY is a
hash of all that the bytes depend on, so that nobody else's checkpoint is ever picked up. Deleting the folder is always safe.
"""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import portalocker
from pydantic import BaseModel

from ..engine import environment
from ..engine.dvc_state import hash_of, recorded
from ..engine.errors import StageError, first_line
from ..engine.inputs import repository
from ..engine.locks import locked
from ..engine.messages import warn
from ..engine.stage import STAGES
from ..engine.stopping import asked

T = TypeVar("T")

# Settings that cannot change a run's bytes.
_NO_PART_OF_KEY = {"report_to", "checkpoint_every"}


# The locks that this process has: a run that failed in a notebook and is started again there must not wait for itself.
_held: dict[Path, ExitStack] = {}


def _root() -> Path:
    return repository() / ".checkpoints"


class Checkpoints:
    """The checkpoints of one run. Until it is finished, or the process ends, no other process has those of the same key.

    Example:
        kept = Checkpoints("ppo", params, READS, params.checkpoint_every.ppo)
        state = kept.newest(lambda folder: torch.load(folder / "state.pt", weights_only=True)) or start()
        for step in range(state["step"] + 1, steps + 1):
            ...
            if kept.due(step, steps):
                with kept.writing(step) as folder:
                    torch.save(state, folder / "state.pt")
        ...                      # write the stage's outs
        kept.finish(WRITES)
    """

    def __init__(self, stage: str, params: BaseModel, reads: Sequence[str], every: int | None) -> None:
        """Find the run's folder, and wait for its lock.

        Args:
            params: the settings that the stage loads.
            reads: the files and folders that it reads.
            every: steps between checkpoints; None: there are none.
        """
        forget_recorded()
        self.stage, self.every = stage, every
        if every is None:
            return
        self.folder = _root().absolute() / stage / key_of(params, reads)
        if self.folder not in _held:
            _held[self.folder] = ExitStack()
            _held[self.folder].enter_context(_lock_of(self.folder, wait=True))
        for half in self.folder.glob("*.part"):
            shutil.rmtree(half)

    def newest(self, read: Callable[[Path], T]) -> T | None:
        """What `read` makes of the newest checkpoint that is whole; a damaged one is passed over, with a warning."""
        for folder in sorted(self.folder.glob("[0-9]*[0-9]"), reverse=True) if self.every is not None else []:
            try:
                _check(folder)
                found = read(folder)
            except (OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
                warn(self.stage, f"the checkpoint of step {int(folder.name)} is passed over: {first_line(error)}")
                continue
            print(f"{self.stage}: goes on from its checkpoint of step {int(folder.name)}", flush=True)
            return found
        return None

    def due(self, step: int, steps: int) -> bool:
        """Whether to write one after `step`: every so often, after the last, and before the stage stops."""
        return self.every is not None and (step % self.every == 0 or step == steps or asked() is not None)

    @contextmanager
    def writing(self, step: int) -> Iterator[Path]:
        """A folder to write a checkpoint to: it is checksummed, synced and renamed when the block ends well.

        The one before stays; others go.

        Raises:
            StageError: it cannot be written.
        """
        aside = self.folder / f"{step:09d}.part"
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            yield aside
            _seal(aside)
            whole = aside.with_suffix("")
            shutil.rmtree(whole, ignore_errors=True)  # a damaged one of this step
            aside.replace(whole)
            _sync(self.folder)
        except Exception as error:  # of torch and safetensors too, which have their own for a full disk
            shutil.rmtree(aside, ignore_errors=True)
            why = first_line(error)
            raise StageError(
                f"step {step}: no checkpoint could be written below .checkpoints/{self.stage}: {why}; make room there, or set "
                f"checkpoint_every.{self.stage}: null. The last good one is kept"
            ) from error
        there = sorted(self.folder.glob("[0-9]*[0-9]"))
        good = [folder for folder in there if folder <= whole]  # later ones were passed over
        for folder in set(there) - set(good[-2:]):
            shutil.rmtree(folder)

    def finish(self, outs: Sequence[str]) -> None:
        """Note that the stage's outs are written: the last checkpoint goes when DVC has recorded them."""
        if self.every is not None:
            if self.folder.exists():  # else there was nothing to train
                _write(self.folder / "outs.json", {out: hash_of(Path(out)) for out in outs})
            _held.pop(self.folder, ExitStack()).close()


def key_of(params: BaseModel, reads: Sequence[str]) -> str:
    """A hash of the project's modules that are loaded, settings, contents of `reads`, libraries, processor, threads and
    variables that tell the libraries how to compute."""
    parts: list[Any] = [
        environment.code(STAGES),
        params.model_dump(mode="json", exclude=_NO_PART_OF_KEY),
        [(path.as_posix(), environment.sha256(path)) for name in reads for path in _files(Path(name))],
        environment.libraries(),
        environment.machine(),
        environment.arithmetic(),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def forget_recorded() -> None:
    """Remove the checkpoints of runs whose outs dvc.lock has: nothing can be lost of those any more."""
    try:
        outs = {stage: run.outs for stage, run in recorded().items()}
    except StageError:  # `make repro` repairs it
        return
    for done in _root().glob("*/*/outs.json"):
        try:
            if json.loads(done.read_text(encoding="utf-8")) == outs.get(done.parent.parent.name):
                with _lock_of(done.parent, wait=False):
                    for folder in done.parent.iterdir():
                        if folder.is_dir():
                            shutil.rmtree(folder)
                    shutil.rmtree(done.parent)  # with outs.json last, so that what a kill leaves of it is removed next time
        except (OSError, ValueError, portalocker.AlreadyLocked):  # another process has it; a kill cut the file short
            continue


def _lock_of(folder: Path, wait: bool) -> AbstractContextManager[None]:
    """The lock of a run's checkpoints."""
    stage, key = folder.parts[-2:]
    return locked(stage, (), [f"checkpoints/{stage}/{key}"], _root() / "locks", wait)


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(path: Path, tree: Mapping[str, str | None]) -> None:
    path.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    _sync(path)


def _seal(folder: Path) -> None:
    """Checksums of the files in it, and all of it on the disk."""
    files = _files(folder)
    _write(folder / "checksums.json", {file.relative_to(folder).as_posix(): environment.sha256(file) for file in files})
    for file in files:
        _sync(file)
    _sync(folder)


def _check(folder: Path) -> None:
    """
    Raises:
        ValueError: a file is not what it was.
    """
    sums = json.loads((folder / "checksums.json").read_text(encoding="utf-8"))
    now = {
        file.relative_to(folder).as_posix(): environment.sha256(file)
        for file in _files(folder)
        if file.name != "checksums.json"
    }
    if sums != now:
        wrong = [name for name in now if not isinstance(sums, dict) or sums.get(name) != now[name]]
        raise ValueError(f"{(wrong or ['a file'])[0]} is damaged or missing")
