"""Check that the current folder is a repository of this project, and which settings its last run had."""

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..engine.dvc_state import recorded
from ..engine.errors import StageError
from ..engine.inputs import require
from ..engine.messages import made, one_line, shown
from .config import ROOT, RLHFConfig, differences


def require_repository(config: object, *paths: str) -> None:
    """Refuse a current folder in which nothing can run.

    Raises:
        StageError: the current folder is no repository of this project (the message names one); `config` is no RLHFConfig;
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
    """Return what the pipeline in the current folder writes. DVC deletes any other file that it finds there.

    The result is empty where the folder has no dvc.yaml.
    """
    return made() if Path("dvc.yaml").is_file() else []


def require_run() -> None:
    """Refuse to show the results of a run that did not finish.

    Raises:
        StageError: dvc.lock records no finished run.
    """
    for path in ("dvc.lock", "metrics/evaluation.json"):
        require(Path(path))
    stages = recorded()
    written = {path: md5 for stage in stages.values() for path, md5 in stage.outs.items()}
    read = [dep for stage in stages.values() for dep in stage.deps.items()]
    if "evaluate" not in stages or any(md5 != written.get(path, md5) for path, md5 in read):
        raise StageError("the last run did not finish; call run_complete_pipeline")


UP_TO_SFT = ("prepare", "base", "sft")  # the stages that models/sft comes from
_asked: list[RLHFConfig] = []  # the config of the last `run_complete_pipeline` here, and that of its run, with `num_steps`


def note_run(config: RLHFConfig, run: RLHFConfig) -> None:
    """Note that a run for `config` had the settings of `run`, so that no warning names the steps that the user asked for."""
    _asked[:] = [config, run]


def warn_of_other_settings(config: RLHFConfig, stages: Iterable[str] | None = None) -> None:
    """Warn of each setting in which `config` differs from the last run of some stages.

    If `config` was run with `num_steps`, these are its steps.

    Args:
        stages: names of stages. None means all.
    """
    if _asked and config is _asked[0]:
        config = _asked[1]
    run = recorded()
    names = [name for name in (run if stages is None else stages) if name in run and name != "check"]
    before: dict[str, Any] = {}  # `check` also reads settings that change no result
    for name in names:
        before |= run[name].params
    now = {key: _at(config.model_dump(mode="json"), key) for key in before}
    for key, (old, new) in differences(before, now).items():
        used = f"the last run had {key} {shown(old)}, not {shown(new)}"
        warnings.warn(one_line(f"{used}; call run_complete_pipeline to run with these settings"), stacklevel=3)


def _at(tree: Any, key: str) -> Any:
    """Return the value at a key such as ppo.steps. The value is None where no setting has this name."""
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def free_folder(folder: str | Path) -> Path:
    """Return a folder to save a model to. It is new, or empty, or holds a saved model, which will be replaced.

    Raises:
        StageError: the pipeline writes the folder; the folder holds other files than a saved model.
    """
    if not isinstance(folder, str | Path) or not str(folder).strip():
        raise StageError(f"folder should name a folder to save to (got {shown(folder)})")
    path = Path(folder).expanduser().resolve()
    for out in outs():
        if out.resolve() in (path, *path.parents) or path in out.resolve().parents:
            raise StageError(f"{folder} belongs to the pipeline's outputs ({out}); name another folder")
    there = {file.name for file in path.iterdir()} if path.is_dir() else set()
    if path.is_file() or (there and not {"config.json", "model.safetensors"} <= there):
        raise StageError(f"{folder} holds other files than a saved model; name a new folder")
    return path
