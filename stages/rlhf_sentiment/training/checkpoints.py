"""Checkpoints: a training run that was killed at any moment resumes from its last good one, and ends with the same bytes.

    .checkpoints/STAGE/KEY/000000050/      everything that the run needs to resume from step 50
    .checkpoints/STAGE/KEY/000000050/checksums.json
    .checkpoints/STAGE/KEY/NAME.json       what the run chose on this machine, such as `dtype`
    .checkpoints/STAGE/KEY/outs.json       hashes of the outputs of a finished stage, until DVC has recorded them

The folder is not among DVC's outs, because DVC deletes these before a run. Queued experiments use the folder of the main
repository. KEY is a hash of everything that the bytes depend on, so that a run never resumes from a checkpoint of a different
run. You can always delete the folder.
"""

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import portalocker
from pydantic import BaseModel

from ..engine import environment
from ..engine.command_line import STAGES
from ..engine.dvc_state import hash_of, recorded
from ..engine.elsewhere import why_not_portable
from ..engine.errors import StageError, first_line
from ..engine.inputs import repository
from ..engine.locks import locked
from ..engine.messages import warn
from ..engine.ranks import busy, is_main
from ..engine.stopping import requested_stop
from ..models.exchange import of_main

T = TypeVar("T")

# Settings that do not decide from which checkpoint a run resumes. `launcher` changes only last bits.
_NO_PART_OF_KEY = {"checkpoint_every", "launcher"}


# The locks of this process. In a notebook, a run that failed and is started again must not wait for itself.
_held: dict[Path, ExitStack] = {}


def checkpoints_folder() -> Path:
    """Return the folder of all checkpoints, which is in the main repository also for a queued experiment."""
    return repository() / ".checkpoints"


class Checkpoints:
    """The checkpoints of one run.

    A process holds the checkpoints of its key alone, until it calls `finish` or ends.

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
            stage: the stage's name.
            params: the settings that the stage loads.
            reads: the files and folders that the stage reads.
            every: the number of steps between checkpoints. None means no checkpoints.
        """
        if is_main():
            forget_recorded()
        self.stage, self.every = stage, every
        if every is None:
            return
        self.folder = of_main(lambda: checkpoints_folder().absolute() / stage / key_of(params, reads))
        if not is_main():
            return
        if self.folder not in _held:
            _held[self.folder] = ExitStack()
            with busy():  # it may wait
                _held[self.folder].enter_context(_lock_of(self.folder, wait=True))
        for half in self.folder.glob("[0-9]*.part"):
            shutil.rmtree(half)

    def newest(self, read: Callable[[Path], T]) -> T | None:
        """Return the result of `read` on the newest intact checkpoint, or None. Damaged ones are skipped with a warning."""
        for folder in sorted(self.folder.glob("[0-9]*[0-9]"), reverse=True) if self.every is not None else []:
            try:
                _check(folder)
                found = read(folder)
            except (OSError, ValueError, EOFError, pickle.UnpicklingError) as error:
                warn(self.stage, f"the checkpoint of step {int(folder.name)} is skipped: {first_line(error)}")
                continue
            print(f"{self.stage}: goes on from its checkpoint of step {int(folder.name)}", flush=True)
            return found
        return None

    def choice(self, name: str, choose: Callable[[], T]) -> T:
        """Return what the run chose when it began, so that a run that resumes keeps it. At first, call `choose`.

        Args:
            name: of the choice.
            choose: returns plain values.
        """
        return of_main(lambda: self._choice(name, choose))

    def _choice(self, name: str, choose: Callable[[], T]) -> T:
        if self.every is None:
            return choose()
        file = self.folder / f"{name}.json"
        with suppress(OSError, ValueError):
            return cast(T, json.loads(file.read_text(encoding="utf-8")))
        chosen = choose()
        self.folder.mkdir(parents=True, exist_ok=True)
        aside = file.with_suffix(".json.part")
        aside.write_text(json.dumps(chosen) + "\n", encoding="utf-8")
        aside.replace(file)
        return chosen

    def due(self, step: int, steps: int) -> bool:
        """Return whether to write a checkpoint after `step`: at each interval, after the last step, and before a stop.

        Of several ranks, only the main one writes.
        """
        if self.every is None or not is_main():
            return False
        return step % self.every == 0 or step == steps or requested_stop() is not None

    @contextmanager
    def writing(self, step: int) -> Iterator[Path]:
        """Give a folder to write a checkpoint to. After the block it gets checksums, is synced and takes its final name.

        The checkpoint before it stays, and older ones are removed.

        Raises:
            StageError: the checkpoint cannot be written.
        """
        aside = self.folder / f"{step:09d}.part"
        try:
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            with busy():
                yield aside
                _seal(aside)
            whole = aside.with_suffix("")
            shutil.rmtree(whole, ignore_errors=True)  # a damaged checkpoint of this step
            aside.replace(whole)
            _sync(self.folder)
        except Exception as error:  # torch and safetensors have their own errors for a full disk
            shutil.rmtree(aside, ignore_errors=True)
            why = first_line(error)
            raise StageError(
                f"step {step}: no checkpoint could be written below .checkpoints/{self.stage}: {why}; free disk space, or "
                f"leave checkpoint_every.{self.stage} empty (the last good checkpoint is kept)"
            ) from error
        there = sorted(self.folder.glob("[0-9]*[0-9]"))
        good = [folder for folder in there if folder <= whole]  # later ones were skipped as damaged
        for folder in set(there) - set(good[-2:]):
            shutil.rmtree(folder)

    def finish(self, outs: Sequence[str]) -> None:
        """Note that the stage's outputs are written. The checkpoints are removed after DVC has recorded these outputs."""
        if self.every is not None and is_main():
            if self.folder.exists():  # it does not exist where the stage trained nothing
                _write(self.folder / "outs.json", {out: hash_of(Path(out)) for out in outs})
            _held.pop(self.folder, ExitStack()).close()


def key_of(params: BaseModel, reads: Sequence[str]) -> str:
    """Return a hash of everything that the bytes of a run depend on.

    These are the source of the loaded modules, the settings and the contents of `reads`. The others are the versions of the
    libraries, the processor, the number of threads, and the environment variables that change arithmetic. With portable
    arithmetic, a run can resume on another processor.
    """
    machine = environment.machine()
    if getattr(params, "arithmetic", "fast") == "portable" and why_not_portable() is None:
        machine = {"instructions": machine.get("instructions", "")}
    parts: list[Any] = [
        environment.code(STAGES),
        params.model_dump(mode="json", exclude=_NO_PART_OF_KEY),
        [(path.as_posix(), environment.sha256(path)) for name in reads for path in _files(Path(name))],
        environment.libraries(),
        machine,
        environment.arithmetic(),
    ]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def forget_recorded() -> None:
    """Remove the checkpoints of runs whose outputs dvc.lock has recorded."""
    try:
        outs = {stage: run.outs for stage, run in recorded().items()}
    except StageError:  # `make repro` repairs it
        return
    for done in checkpoints_folder().glob("*/*/outs.json"):
        try:
            if json.loads(done.read_text(encoding="utf-8")) == outs.get(done.parent.parent.name):
                with _lock_of(done.parent, wait=False):
                    for folder in done.parent.iterdir():
                        if folder.is_dir():
                            shutil.rmtree(folder)
                    shutil.rmtree(done.parent)  # with outs.json last, so that the next call completes a removal that was killed
        except (OSError, ValueError, portalocker.AlreadyLocked):  # another process holds it, or a kill truncated the file
            continue


def _lock_of(folder: Path, wait: bool) -> AbstractContextManager[None]:
    """Hold the lock of a run's checkpoints."""
    stage, key = folder.parts[-2:]
    return locked(stage, (), [f"checkpoints/{stage}/{key}"], checkpoints_folder() / "locks", wait)


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
    """Write checksums of the files in a folder, and sync all of it to the disk."""
    files = _files(folder)
    _write(folder / "checksums.json", {file.relative_to(folder).as_posix(): environment.sha256(file) for file in files})
    for file in files:
        _sync(file)
    _sync(folder)


def _check(folder: Path) -> None:
    """Compare a checkpoint with its checksums.

    Raises:
        ValueError: a file is damaged or missing.
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
