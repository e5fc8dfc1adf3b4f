"""The files that users bring, and which of them a queued experiment has.

DVC runs a queued or --temp experiment in a copy of the repository. The copy has only files that git or DVC tracks.
"""

import os
from collections.abc import Sequence
from os.path import isfile
from pathlib import Path

from .messages import warn

BROUGHT = ("data/raw", "models/pretrained", "prompts")


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
            return f"; `dvc pull {tracked}` brings it"
    lacks = "; a queued or --temp experiment has only what git or DVC tracks: `dvc add` it (docs/data.md)"
    return lacks if in_copy() else ""


def warn_of_untracked(stage: str, reads: Sequence[str]) -> None:
    """In a copy, warn of files that users brought to the repository and that the copy lacks."""
    for folder in sorted({*BROUGHT} & {*reads}) if in_copy() else ():
        files = (file.relative_to(repository()) for file in (repository() / folder).rglob("*") if file.is_file())
        unseen = sorted(file for file in files if "/." not in file.as_posix() and not file.exists())
        if unseen:
            more = f" and {len(unseen) - 1} more" if len(unseen) > 1 else ""
            warn(
                stage, f"this experiment lacks {unseen[0]}{more}, which neither git nor DVC tracks; `dvc add` it (docs/data.md)"
            )
