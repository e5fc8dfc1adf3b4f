"""Check that the inputs of a stage exist, and say how to get missing files of users.

DVC runs a queued or --temp experiment in a copy of the repository. The copy has only files that git or DVC tracks.
"""

import json
import os
from collections.abc import Sequence
from glob import glob
from os.path import isfile
from pathlib import Path

from .errors import StageError
from .messages import mend_of, warn

# The files that every model has. An incomplete model is refused before any work.
_MODEL_FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")

# The folders of the files that users bring, and the records of those files that the settings name (stages/hashes.py).
BROUGHT, RECORDS = ("data/raw", "models/pretrained", "prompts"), "data/hashes"


def repository() -> Path:
    """Return the repository's root, from DVC. A stage that runs in a copy has another current folder."""
    return Path(os.environ.get("DVC_ROOT", "."))


def in_copy() -> bool:
    """Return whether this is a queued or --temp experiment."""
    return repository().resolve() != Path.cwd().resolve()


def whence(path: str | Path) -> str:
    """Return how to get a missing input, for the end of a message. Empty where there is nothing to add."""
    for one in (Path(path), *Path(path).parents):
        tracked = Path(f"{one}.dvc")
        if isfile(tracked):  # `isfile` also takes a name that is too long for a file
            return f"; run `dvc pull {tracked}` to get it"
    lacks = "; a queued or --temp experiment has only files that git or DVC tracks, so `dvc add` it (docs/data.md)"
    return lacks if in_copy() else ""


def named_by(value: str, root: Path = Path()) -> list[Path]:
    """Return the paths that a setting names, relative to `root`: a file, a folder, or the matches of a glob."""
    if (root / value).exists():
        return [Path(value)]
    found = (Path(one) for one in glob(value, root_dir=root, recursive=True, include_hidden=True) if (root / one).is_file())
    return sorted(one for one in found if one.suffix != ".dvc" and one.name != ".gitignore")


def warn_of_untracked(stage: str, reads: Sequence[str]) -> None:
    """In a copy, warn of files that the settings name, that the repository has, and that the copy lacks."""
    records = [Path(path) for path in reads if path.startswith(RECORDS)] if in_copy() else []
    values = {value for record in records for value in json.loads(record.read_text(encoding="utf-8"))}
    there = [repository() / path for value in values for path in named_by(value, repository())]
    files = {file.relative_to(repository()) for path in there for file in (path, *path.rglob("*")) if file.is_file()}
    unseen = sorted(file for file in files if "/." not in file.as_posix() and not file.exists())
    if unseen:
        more = f" and {len(unseen) - 1} more" if len(unseen) > 1 else ""
        warn(stage, f"this experiment lacks {unseen[0]}{more}, which neither git nor DVC tracks; `dvc add` it (docs/data.md)")


def require(path: Path) -> None:
    """Refuse an input that is absent, empty or incomplete.

    Raises:
        StageError: the message names the path and how to get it.
    """
    if not path.exists():
        mend = "run `dvc repro` to make it"
        if path.as_posix() in BROUGHT:
            mend = f"run `git checkout {path}` to restore it"
        elif path.as_posix().startswith(tuple(f"{folder}/" for folder in BROUGHT)):
            mend = f"put it there{whence(path)}"
        raise StageError(f"{path} is missing; {mend}")
    if path.is_file() and path.stat().st_size == 0:
        raise StageError(f"{path} is empty; {mend_of(path)}")
    if path.is_dir() and path.parent == Path("models") and path.name not in ("judge", "pretrained"):
        absent = [file for file in _MODEL_FILES if not (path / file).is_file()]
        if absent:
            raise StageError(f"{path} is incomplete: {', '.join(absent)} missing; {mend_of(path)}")
