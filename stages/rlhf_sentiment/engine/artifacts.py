"""What a stage reads and writes: inputs that are there, and outputs that are whole or absent."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from .errors import StageError
from .inputs import BROUGHT, whence
from .messages import mend_of
from .stopping import asked

# What makes a folder a model: half a model is refused before any work, not met as a traceback in the middle of it.
_MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def require(path: Path) -> None:
    """Refuse an input that is absent, empty, or half there.

    Raises:
        StageError: naming the path and the stage that would write it.
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
            raise StageError(f"{path} is half there: {', '.join(absent)} missing; {mend_of(path)}")


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """A path beside `path` to write a file or a folder to; it takes the name `path` only when the block ends well.

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
            path.replace(old)  # a folder that is being deleted is half there for a moment; one that is renamed never is
        aside.replace(path)
    except OSError as error:
        if error.filename is None:  # a full disk does not say what it was full for
            error.filename = str(path)
        raise
    finally:
        if old.exists() and not path.exists():  # stopped between the two renames
            old.replace(path)
        _remove(aside)
        _remove(old)


def remove_halves(writes: Sequence[str]) -> None:
    """Remove what a stage that was killed while it wrote left beside its outs."""
    for path in map(Path, writes):
        for half in path.parent.glob(f".{path.name}.*.part"):
            _remove(half)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
