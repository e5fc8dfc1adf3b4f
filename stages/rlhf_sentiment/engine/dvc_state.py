"""Read what DVC records: which process writes an output now, the last run of each stage, and hashes.

Only this module and stages/mend.py read the files that DVC writes.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from .errors import ConfigError, StageError
from .yaml_files import read_yaml

PIPELINE, LOCK, RWLOCK = Path("dvc.yaml"), Path("dvc.lock"), Path(".dvc/tmp/rwlock")


class Recorded(NamedTuple):
    """What dvc.lock has of the last run of a stage.

    Attributes:
        deps, outs: path -> hash.
        params: key in params.yaml -> value.
    """

    deps: dict[str, str | None]
    outs: dict[str, str | None]
    params: dict[str, Any]


def recorded() -> dict[str, Recorded]:
    """Return what dvc.lock has of each stage in dvc.yaml. The result is empty where one of the files is missing.

    DVC leaves the entry of a stage in dvc.lock when the stage is renamed or removed.

    Raises:
        StageError: one of the files is damaged.
    """
    if not (PIPELINE.is_file() and LOCK.is_file()):
        return {}
    try:
        pipeline = read_yaml(PIPELINE)["stages"]
    except (ConfigError, KeyError):
        raise StageError(f"{PIPELINE} is damaged; run `dvc repro` to see where") from None
    try:
        return {
            name: Recorded(
                {one["path"]: one.get("md5") for one in stage.get("deps", [])},
                {one["path"]: one.get("md5") for one in stage.get("outs", [])},
                dict(stage.get("params", {}).get("params.yaml", {})),
            )
            for name, stage in read_yaml(LOCK).get("stages", {}).items()
            if _is_declared(name, pipeline)
        }
    except (ConfigError, KeyError, TypeError, ValueError, AttributeError):
        raise StageError(f"{LOCK} is damaged; run `make repro` to restore it from git, or to see what is wrong") from None


def _is_declared(name: str, pipeline: dict[str, Any]) -> bool:
    """Return whether dvc.yaml has a stage. `sample@rlhf` is the item rlhf in the `foreach` of sample."""
    stage, _, item = name.partition("@")
    return stage in pipeline and (item in pipeline[stage].get("foreach", ()) if item else "foreach" not in pipeline[stage])


def will_run_alone(name: str, outs: Sequence[str]) -> bool:
    """Return whether the stage that DVC runs now is the only one that has changed.

    `dvc status` cannot tell while a stage runs, because that stage holds the lock of its outs.

    Args:
        name: the stage's name.
        outs: the stage's outputs, which DVC has deleted.
    """
    from dvc.repo import Repo

    others = [stage for stage in Repo().index.stages if stage.addressing != name]
    return not any(one.status() for stage in others for one in (*stage.deps, *stage.outs) if one.def_path not in outs)


def hashes_known() -> Any:
    """Return DVC's table of the hashes that it has computed. A hash is valid until the size, time or inode of its file changes.

    Outside a repository of DVC, the table is empty.
    """
    from dvc.repo import Repo

    return Repo(uninitialized=True).state


def hash_of(path: Path, known: Any = None) -> str | None:
    """Return the hash that dvc.lock has of a file or a folder, as DVC itself computes it.

    Args:
        path: the file or folder.
        known: the result of `hashes_known`. Without it, every file is read.
    """
    from dvc_data.hashfile.build import build
    from dvc_data.hashfile.db import HashFileDB
    from dvc_data.hashfile.state import StateNoop
    from dvc_objects.fs.local import LocalFileSystem
    from dvc_objects.fs.memory import MemoryFileSystem

    nowhere = HashFileDB(MemoryFileSystem(), "/", state=known or StateNoop())
    return build(nowhere, os.path.abspath(path), LocalFileSystem(), "md5", dry_run=True)[2].hash_info.value


def writers() -> dict[str, int]:
    """Return the absolute path of each output that a dvc writes now, with the process id of that dvc.

    DVC adds these entries before it runs a stage. The entries of a dvc that was killed stay there.
    """
    try:
        entries = json.loads(RWLOCK.read_text(encoding="utf-8"))["write"]
        return {path: int(entry["pid"]) for path, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):  # no such file, or a damaged one
        return {}


def writer_of(out: str) -> int | None:
    """Return the process id of the dvc that writes an output, or None where DVC names none."""
    return writers().get(os.path.abspath(out))


def is_running(pid: int, since: float) -> bool:
    """Return whether a process is alive and began before a time, in seconds since the epoch.

    A process that began later is another one, to which the system gave the same id.
    """
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= since
    except (psutil.Error, ValueError, OverflowError):  # no such process, or one of another user, or an id that is not possible
        return False
