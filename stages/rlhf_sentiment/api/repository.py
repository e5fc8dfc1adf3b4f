"""What the current folder must be, and whether what lies in it was made with the settings at hand."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from voluptuous import Invalid

from ..engine.artifacts import require
from ..engine.errors import ConfigError, StageError
from ..engine.messages import MADE, one_line, shown
from ..engine.params import read_yaml
from .config import ROOT, RLHFConfig, differences


def require_repository(config: object, *paths: str) -> None:
    """
    Raises:
        StageError: the current folder is no repository of this project, and it says where one is; `config` is no RLHFConfig;
            one of `paths` is missing.
    """
    if not isinstance(config, RLHFConfig):
        raise StageError(f"config should be an RLHFConfig (got {shown(config)})")
    absent = [name for name in ("dvc.yaml", ".dvc", "stages/ppo.py") if not Path(name).exists()]
    if absent:
        raise StageError(
            f"{Path.cwd()} is no repository of this project ({', '.join(absent)} missing); change to the root of one first: "
            f'os.chdir("{ROOT}")'
        )
    for path in paths:
        require(Path(path))


def outs() -> list[Path]:
    """Return what the pipeline of the current folder writes, if the folder has a pipeline. DVC deletes other files there."""
    return [Path(made) for made in MADE] if Path("dvc.yaml").is_file() else []


def require_run() -> None:
    """Refuse to speak of a run that is not there.

    Raises:
        StageError: dvc.lock records no finished run.
    """
    for path in ("dvc.lock", "metrics/evaluation.json"):
        require(Path(path))
    stages = _recorded()
    written = {out["path"]: out.get("md5") for stage in stages.values() for out in stage.get("outs", [])}
    read = [dep for stage in stages.values() for dep in stage.get("deps", [])]
    if "evaluate" not in stages or any(dep.get("md5") != written.get(dep["path"], dep.get("md5")) for dep in read):
        raise StageError("the last run did not come to its end; call run_complete_pipeline")


def warn_of_other_settings(config: RLHFConfig, stages: Iterable[str] | None = None) -> None:
    """Warn of each setting that the last run of some stages (None: of all) had otherwise than `config`."""
    run = _recorded()
    recorded: dict[str, Any] = {}
    for name in run if stages is None else stages:
        if name != "check":  # which also reads what changes no result
            recorded |= run.get(name, {}).get("params", {}).get("params.yaml", {})
    now = {key: _at(config.model_dump(mode="json"), key) for key in recorded}
    for key, (old, new) in differences(recorded, now).items():
        message = f"the last run had {key} {shown(old)}, not {shown(new)}; run_complete_pipeline makes one with these settings"
        warnings.warn(one_line(message), stacklevel=3)


def _recorded() -> dict[str, Any]:
    """The stages of dvc.lock; none, where there is no such file.

    Raises:
        StageError: it is damaged.
    """
    lock = Path("dvc.lock")
    try:
        return dict(COMPILED_LOCKFILE_SCHEMA(read_yaml(lock)).get("stages", {})) if lock.is_file() else {}
    except (ConfigError, Invalid):
        raise StageError("dvc.lock is damaged; `make repro` restores it from git, or says what is wrong") from None


def _at(tree: Any, key: str) -> Any:
    """The value at a key such as ppo.steps; None, where a setting is no more."""
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree
