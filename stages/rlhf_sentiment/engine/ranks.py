"""The processes of a stage, its ranks: which one this is, and signs of life for the process that started them.

engine/launch.py starts the ranks where `launcher` in params.yaml asks for several. Rank 0 is the main one. It alone holds
locks, prints and writes. The variables RANK and WORLD_SIZE are those of torchrun, which accelerate reads too.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The folder for signs of life, which engine/launch.py sets. A file for each rank of this machine, by its number.
SIGNS = "RLHF_SIGNS_OF_LIFE"
# The file there that says that the steps have begun.
STEPS = "steps"
# The process that started the ranks.
LAUNCHER = "RLHF_LAUNCHER"
# Set where the ranks divide the weights. With LAYERS_STAY, a layer is whole from its forward to its backward pass.
SHARDS, FULL, LAYERS_STAY = "RLHF_SHARDS", "full", "layers stay"
# The exit status of a rank that only ended because another one did.
LOST = 75


def rank() -> int:
    """Return the number of this process among those of the stage, from 0."""
    return int(os.environ.get("RANK", 0)) if size() > 1 else 0


def size() -> int:
    """Return the number of processes of the stage."""
    return int(os.environ.get("WORLD_SIZE", 1))


def shards() -> bool:
    """Return whether the ranks divide the weights of the models that learn (FSDP)."""
    return SHARDS in os.environ and size() > 1


def keeps_layers() -> bool:
    """Return whether a rank keeps a layer whole between its forward and its backward pass."""
    return os.environ.get(SHARDS) == LAYERS_STAY


def is_main() -> bool:
    """Return whether this process is the one that prints and writes."""
    return rank() == 0


def named(stage: str) -> str:
    """Return the stage's name for an error, with the rank where there are several."""
    return f"{stage}: rank {rank()}" if size() > 1 else stage


def alive() -> None:
    """Give a sign of life: the file of this rank becomes longer. All ranks call this at the same points of their work.

    The rank with the shortest file is therefore the one for which the others wait.
    """
    if SIGNS in os.environ:
        with open(Path(os.environ[SIGNS]) / str(rank()), "ab") as file:
            file.write(b".")


def steps_begin() -> None:
    """Say that the work of this stage from here on consists of steps, so that a rank that hangs is noticed soon."""
    if SIGNS in os.environ:
        (Path(os.environ[SIGNS]) / STEPS).touch()


def working() -> None:
    """Give a sign of life at a point of this rank alone, such as each token: the file of this rank becomes newer."""
    if SIGNS in os.environ:
        os.utime(Path(os.environ[SIGNS]) / str(rank()))


@contextmanager
def busy() -> Iterator[None]:
    """Give signs of life while the block runs, such as while rank 0 writes a large file and the others wait."""
    over = threading.Event()

    def tick() -> None:
        while not over.wait(1):
            working()

    if SIGNS in os.environ:
        threading.Thread(target=tick, daemon=True).start()
    try:
        yield
    finally:
        over.set()


def note_loss(why: str) -> None:
    """Leave the error with which this rank lost another one, for the launcher."""
    if SIGNS in os.environ:
        (Path(os.environ[SIGNS]) / f"{rank()}.lost").write_text(why, encoding="utf-8")


def end_with_parent() -> None:
    """End this rank when the process that started it has ended, for any reason."""

    def watch() -> None:
        while os.getppid() == int(os.environ[LAUNCHER]):
            time.sleep(0.5)
        os._exit(LOST)

    if LAUNCHER in os.environ:
        threading.Thread(target=watch, daemon=True).start()
