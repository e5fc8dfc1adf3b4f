"""Write outputs that are complete or absent."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import StageError
from .stopping import requested_stop


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path for a file or a folder. It is renamed to `path` only when the block ends without an error.

    Args:
        path: what to write. A file replaces a file of this name, and a folder replaces a folder.

    Raises:
        StageError: a file would replace a folder, or a folder a file.
        Stopped: the stage was asked to stop.

    Example:
        with writing("models/sft") as folder:
            model.save_pretrained(folder)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside, old = (path.with_name(f".{path.name}.{os.getpid()}.{kind}.part") for kind in ("new", "old"))
    try:
        yield aside
        if path.is_dir() != aside.is_dir() and path.exists():
            raise StageError(f"{path}: a {'folder' if path.is_dir() else 'file'} of this name exists; name another path")
        if (stopped := requested_stop()) is not None:
            raise stopped
        if path.is_dir():
            path.replace(old)  # a deletion leaves a folder incomplete for a moment, a rename does not
        aside.replace(path)
    except OSError as error:
        if error.filename is None:  # the error of a full disk names no file
            error.filename = str(path)
        raise
    finally:
        if old.exists() and not path.exists():  # stopped between the two renames
            old.replace(path)
        _remove(aside)
        _remove(old)


def remove_halves(writes: Sequence[str]) -> None:
    """Remove the temporary files that a killed stage left next to its outputs."""
    for path in map(Path, writes):
        for half in path.parent.glob(f".{path.name}.*.part"):
            _remove(half)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
