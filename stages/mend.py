"""Repair the files that a killed dvc may leave half written, so that the next `dvc repro` can start. `make repro` runs this.

DVC writes dvc.lock and .dvc/tmp/rwlock in place. A dvc.lock that DVC cannot read is restored from git. Stages that have run
since that commit are restored from DVC's run cache, or resume from their checkpoints. An rwlock that DVC cannot read only names
running processes, and is removed. A params.yaml with no valid settings is refused before DVC reads it. A file with the marks of
a merge is refused, too.
"""

from rlhf_sentiment.engine.start import one_line_errors  # isort: split

import argparse

if __name__ == "__main__":  # before DVC is imported
    argparse.ArgumentParser(
        prog="python stages/mend.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()

import json
import subprocess
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import psutil
from dvc.rwlock import SCHEMA as RWLOCK_SCHEMA
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils.strictyaml import load

from rlhf_sentiment.engine.dvc_state import LOCK, PIPELINE, RWLOCK
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.outputs import writing
from rlhf_sentiment.engine.params import read_yaml

NAME = "mend"
PARAMS = Path("params.yaml")


def main() -> None:
    """Check the three files, and repair or refuse each that is damaged."""
    with one_line_errors(NAME):
        for path in (PARAMS, PIPELINE):
            refuse_marks(path)
        if PARAMS.exists():
            read_yaml(PARAMS)  # dvc would expand its aliases, however many values they give
        if LOCK.exists() and not is_readable(read_lock, LOCK):
            print(f"{NAME}: {LOCK} was damaged, perhaps because dvc was killed; {mend_lock()}")
        if RWLOCK.exists() and not is_readable(read_rwlock, RWLOCK):
            RWLOCK.unlink()
            print(f"{NAME}: {RWLOCK} was damaged, perhaps because dvc was killed; removed")


def refuse_marks(path: Path) -> None:
    """Refuse a file that a person must merge.

    Raises:
        StageError: the file has the marks of a merge.
    """
    if path.is_file() and b"\n<<<<<<< " in b"\n" + path.read_bytes():
        raise StageError(f"{path} has merge conflicts; resolve them, then run `make resolve`")


def mend_lock() -> str:
    """Replace dvc.lock by the committed one, or rename it where git has none that DVC can read. Return what was done.

    Raises:
        StageError: dvc.lock has the marks of a merge.
    """
    if b"<<<<<<<" in LOCK.read_bytes():
        raise StageError(f"{LOCK} has merge conflicts; run `make resolve`, which merges it and runs the changed stages")
    try:
        with writing(LOCK) as committed:
            command = ["git", "show", f"HEAD:./{LOCK}"]
            committed.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)  # noqa: S603 (fixed words)
            read_lock(committed)
    except Exception:  # no git, never committed, or committed in a damaged state
        return f"renamed to {LOCK.replace(f'{LOCK}.cut')}"
    return "restored from git"


def read_lock(path: Path) -> None:
    """Read dvc.lock with DVC's own parser and schema.

    Nothing simpler works. Another parser accepts files that DVC refuses, such as one with the same stage twice.
    """
    load(str(path), COMPILED_LOCKFILE_SCHEMA)


def read_rwlock(path: Path) -> None:
    """Read an rwlock with DVC's own schema, and look for each process in it, as DVC does."""
    held = RWLOCK_SCHEMA(json.loads(path.read_text(encoding="utf-8")))
    for holder in (*chain(*held.get("read", {}).values()), *held.get("write", {}).values()):
        psutil.pid_exists(holder["pid"])  # raises for a number that no process can have


def is_readable(read: Callable[[Path], Any], path: Path) -> bool:
    """Return whether DVC can read a file.

    Raises:
        OSError: the file cannot be opened, so its content does not matter.
    """
    path.open("rb").close()
    try:
        read(path)
    except Exception:  # damage makes parsers raise anything, also RecursionError and IndexError
        return False
    return True


if __name__ == "__main__":
    main()
