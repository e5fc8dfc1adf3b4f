"""Check that inputs are there, and write outputs that are whole or absent."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import StageError
from .inputs import BROUGHT, whence
from .messages import mend_of
from .stopping import asked

# The files that every model has. An incomplete model is refused before any work.
_MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def require(path: Path) -> None:
    """Refuse an input that is absent, empty or incomplete.

    Raises:
        StageError: the message names the path and how to get it.
    """
    if not path.exists():
        mend = "`dvc repro` writes what is missing, in order"
        if path.as_posix() in BROUGHT:
            mend = f"`git checkout {path}` brings it back"
        elif path.as_posix().startswith(tuple(f"{folder}/" for folder in BROUGHT)):
            mend = f"put it there{whence(path)}"
        raise StageError(f"{path} is missing; {mend}")
    if path.is_file() and path.stat().st_size == 0:
        raise StageError(f"{path} is empty; {mend_of(path)}")
    if path.is_dir() and path.parent == Path("models") and path.name not in ("judge", "pretrained"):
        absent = [file for file in _MODEL_FILES if not (path / file).is_file()]
        if absent:
            raise StageError(f"{path} is incomplete: {', '.join(absent)} missing; {mend_of(path)}")


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Give a temporary path for a file or a folder. It is renamed to `path` only when the block ends without an error.

    Args:
        path: what to write. A file or folder of this name is replaced by its own kind.

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
            raise StageError(f"{path}: a {'folder' if path.is_dir() else 'file'} is in the way; name another path")
        if (stopped := asked()) is not None:
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
    """Remove the temporary files that a killed stage left beside its outputs."""
    for path in map(Path, writes):
        for half in path.parent.glob(f".{path.name}.*.part"):
            _remove(half)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
