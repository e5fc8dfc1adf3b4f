"""Mend what a dvc that was killed while it wrote may leave, so that the next `dvc repro` can start. `make repro` runs it first.

DVC writes dvc.lock and .dvc/tmp/rwlock in place. A dvc.lock that was cut short is restored from git: stages that have run
since come back from DVC's run cache, or from their checkpoints. A broken rwlock is removed: it only says who is at work.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import yaml
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from voluptuous import Invalid

LOCK, RWLOCK = Path("dvc.lock"), Path(".dvc/tmp/rwlock")


def main() -> None:
    argparse.ArgumentParser(
        prog="python stages/mend.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    if LOCK.exists() and not is_whole_lock(LOCK):
        if b"<<<<<<<" in LOCK.read_bytes():
            print(f"mend: {LOCK} is in the middle of a merge; resolve that first", file=sys.stderr)
            sys.exit(1)
        command = ["git", "show", f"HEAD:./{LOCK}"]
        committed = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 (fixed words)
        if committed.returncode == 0:
            LOCK.write_bytes(committed.stdout)
            done = "restored from git"
        else:  # never committed
            LOCK.replace(f"{LOCK}.cut")
            done = f"put aside as {LOCK}.cut"
        print(f"mend: {LOCK} was cut short by a dvc that was killed; {done}")
    if RWLOCK.exists() and not is_json(RWLOCK):
        RWLOCK.unlink()
        print(f"mend: {RWLOCK} was cut short by a dvc that was killed; removed")


def is_whole_lock(path: Path) -> bool:
    """Whether DVC can read it."""
    try:
        COMPILED_LOCKFILE_SCHEMA(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (UnicodeDecodeError, yaml.YAMLError, Invalid):
        return False
    return True


def is_json(path: Path) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


if __name__ == "__main__":
    main()
