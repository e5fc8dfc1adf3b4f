"""Locks on what a stage reads and writes, so that no two processes write it at once, nor does one read what another writes.

The kernel holds them (portalocker: flock) and lets go of them when their process ends, however it ends: none is ever stale.
They lie in .checkpoints/locks, not on the files, which DVC deletes before a run.
"""

import errno
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import portalocker
from portalocker import LockFlags


@contextmanager
def locked(
    stage: str,
    reads: Sequence[str],
    writes: Sequence[str],
    root: Path = Path(".checkpoints/locks"),
    wait: bool = True,
) -> Iterator[None]:
    """Hold the paths `reads`, shared with other readers, and `writes`, alone; say so on the screen where it has to wait.

    Each process takes its locks in the order of their names, so that no two wait for each other.

    Raises:
        portalocker.AlreadyLocked: another process has one, and `wait` is False.
    """
    with ExitStack() as stack:
        for path in sorted({*reads, *writes}):
            stack.enter_context(_lock(stage, path, path in writes, root, wait))
        yield


@contextmanager
def _lock(stage: str, path: str, alone: bool, root: Path, wait: bool) -> Iterator[None]:
    root.mkdir(parents=True, exist_ok=True)
    kind = LockFlags.EXCLUSIVE if alone else LockFlags.SHARED
    with open(root / path.replace("/", "--"), "a+", encoding="utf-8") as file:
        try:
            portalocker.lock(file, kind | LockFlags.NON_BLOCKING)
        except portalocker.AlreadyLocked:
            if not wait:
                raise
            file.seek(0)
            writer = file.read().strip()
            print(f"{stage}: waits for {path}, which {writer or 'another process'} is at work on", flush=True)
            portalocker.lock(file, kind)
        except portalocker.LockException as error:
            raise OSError(errno.ENOLCK, "cannot be locked on this file system", f"{root}/{path}") from error
        file.truncate(0)
        if alone:
            file.write(f"{stage} (process {os.getpid()})")
            file.flush()
        yield
