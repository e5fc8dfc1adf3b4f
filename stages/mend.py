"""Mend what a dvc that was killed while it wrote may leave, so that the next `dvc repro` can start. `make repro` runs it first.

DVC writes dvc.lock and .dvc/tmp/rwlock in place. A dvc.lock that DVC cannot read is restored from git: stages that have run
since come back from DVC's run cache, or from their checkpoints. Such an rwlock is removed: it only says who is at work.
A params.yaml that cannot be settings is refused, before DVC reads it.
"""

from rlhf_sentiment.engine.start import one_line_errors  # isort: split

import argparse
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

from rlhf_sentiment.engine.artifacts import writing
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.params import read_yaml

PARAMS, LOCK, RWLOCK = Path("params.yaml"), Path("dvc.lock"), Path(".dvc/tmp/rwlock")


def main() -> None:
    argparse.ArgumentParser(
        prog="python stages/mend.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    with one_line_errors("mend"):
        if PARAMS.exists():
            read_yaml(PARAMS)  # dvc reads it before any stage does, and would expand aliases that multiply
        if LOCK.exists() and not is_readable(read_lock, LOCK):
            print(f"mend: {LOCK} was damaged, as by a dvc that was killed; {mend_lock()}")
        if RWLOCK.exists() and not is_readable(read_rwlock, RWLOCK):
            RWLOCK.unlink()
            print(f"mend: {RWLOCK} was damaged, as by a dvc that was killed; removed")


def mend_lock() -> str:
    """Replace dvc.lock by the committed one, or put it aside where there is none that DVC can read; say which.

    Raises:
        StageError: it has the marks of a merge.
    """
    if b"<<<<<<<" in LOCK.read_bytes():
        raise StageError(f"{LOCK} is in the middle of a merge; resolve that first")
    try:
        with writing(LOCK) as committed:
            command = ["git", "show", f"HEAD:./{LOCK}"]
            committed.write_bytes(subprocess.run(command, capture_output=True, check=True).stdout)  # noqa: S603 (fixed words)
            read_lock(committed)
    except Exception:  # no git; never committed; committed as damaged as this
        return f"put aside as {LOCK.replace(f'{LOCK}.cut')}"
    return "restored from git"


def read_lock(path: Path) -> None:
    """Read dvc.lock as DVC does: another parser accepts what DVC's refuses, such as a stage that stands twice."""
    load(str(path), COMPILED_LOCKFILE_SCHEMA)


def read_rwlock(path: Path) -> None:
    """Read an rwlock as DVC does, which asks the system for each process that it names."""
    held = RWLOCK_SCHEMA(json.loads(path.read_text(encoding="utf-8")))
    for holder in (*chain(*held.get("read", {}).values()), *held.get("write", {}).values()):
        psutil.pid_exists(holder["pid"])  # fails for a number that no system can give


def is_readable(read: Callable[[Path], Any], path: Path) -> bool:
    """Whether DVC can read it. A file that cannot be opened is no matter of what is in it.

    Raises:
        OSError: it cannot be opened.
    """
    path.open("rb").close()
    try:
        read(path)
    except Exception:  # parsers raise whatever damage provokes, RecursionError and IndexError among it
        return False
    return True


if __name__ == "__main__":
    main()
