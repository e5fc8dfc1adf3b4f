"""Locks on the inputs and outputs of a stage, so that no process reads or writes a file that another process writes.

The kernel holds the locks (portalocker: flock) and releases them when their process ends for any reason. No lock is ever stale.
The lock files are in .checkpoints/locks, because DVC deletes outputs before a run.
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
    """Hold locks on some paths inside the block. Print a line where the process has to wait.

    Each process takes its locks in the order of their names, so that no two processes wait for each other.

    Args:
        stage: the name for messages.
        reads: paths to share with other readers.
        writes: paths to hold alone.
        root: the folder of the lock files.
        wait: whether to wait for a lock that another process holds.

    Raises:
        portalocker.AlreadyLocked: another process holds a lock, and `wait` is False.
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
            print(f"{stage}: waits for {path}: {writer or 'another process'} holds the lock", flush=True)
            portalocker.lock(file, kind)
        except portalocker.LockException as error:
            raise OSError(errno.ENOLCK, "cannot be locked on this file system", f"{root}/{path}") from error
        file.truncate(0)
        if alone:
            file.write(f"{stage} (process {os.getpid()})")
            file.flush()
        yield
