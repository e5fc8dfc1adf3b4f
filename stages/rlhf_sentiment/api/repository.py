"""What the current folder must be, and whether what lies in it was made with the settings at hand."""

import warnings
from collections.abc import Iterable
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import yaml

from ..run import StageError, require
from .config import ROOT, RLHFConfig, differences


def require_repository(config: object, *paths: str) -> None:
    """
    Raises:
        StageError: the current folder is no repository of this project, and it says where one is; `config` is no RLHFConfig;
            one of `paths` is missing.
    """
    if not isinstance(config, RLHFConfig):
        raise StageError(f"config should be an RLHFConfig (got {config!r:.60})")
    absent = [name for name in ("dvc.yaml", ".dvc", "stages/ppo.py") if not Path(name).exists()]
    if absent:
        raise StageError(
            f"{Path.cwd()} is no repository of this project ({', '.join(absent)} missing); change to the root of one first: "
            f"os.chdir({str(ROOT)!r})"
        )
    for path in paths:
        require(Path(path))


def require_run() -> None:
    """Refuse to speak of a run that is not there.

    Raises:
        StageError: dvc.lock records no finished run.
    """
    for path in ("dvc.lock", "metrics/evaluation.json"):
        require(Path(path))
    stages = _recorded()
    written = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
    read = [dep for stage in stages.values() for dep in stage["deps"]]
    if "evaluate" not in stages or any(dep["md5"] != written.get(dep["path"], dep["md5"]) for dep in read):
        raise StageError("the last run did not come to its end; call run_complete_pipeline")


def warn_of_other_settings(config: RLHFConfig, stages: Iterable[str] | None = None) -> None:
    """Warn of each setting that the last run of some stages (None: of all) had otherwise than `config`."""
    run = _recorded()
    recorded: dict[str, Any] = {}
    for name in run if stages is None else stages:
        if name != "check":  # which also reads what changes no result
            recorded |= run.get(name, {}).get("params", {}).get("params.yaml", {})
    tree = config.model_dump(mode="json")
    now = {key: reduce(getitem, key.split("."), tree) for key in recorded}
    for key, (old, new) in differences(recorded, now).items():
        message = f"the last run had {key} {old!r}, not {new!r}; run_complete_pipeline makes one with these settings"
        warnings.warn(message, stacklevel=3)


def _recorded() -> dict[str, Any]:
    """The stages of dvc.lock; none, where it has none."""
    lock = Path("dvc.lock")
    return yaml.safe_load(lock.read_text(encoding="utf-8"))["stages"] if lock.is_file() else {}
