"""The pipeline from Python: its settings, and a run of it, which is DVC's, so that nothing is done twice.

    from rlhf_sentiment import RLHFConfig, run_complete_pipeline
    run_complete_pipeline(RLHFConfig(), num_steps=50)

The current folder is the world, as it is for the stages: a notebook at the repository's root needs no more than this.
"""

import codecs
import copy
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil

from .config import ConfigError, explained, read_yaml
from .progress import WATCHED, in_notebook
from .run import STAGES, StageError, writing
from .settings.whole import Params

if TYPE_CHECKING:
    from .comparison import Comparison

ROOT = STAGES.parent


class RLHFConfig(Params):
    """All settings of a run, checked as `python stages/check.py` checks them, and frozen.

    They are read from params.yaml of the current folder, else from the repository's, with some changed. Sections are
    attributes; the comments in params.yaml are their manual, with units and ranges.

    Raises:
        ConfigError: an unknown key, a wrong value, a combination that cannot work; a line for each, with what would be right.

    Example:
        >>> config = RLHFConfig()
        >>> config.ppo.kl_coef
        0.3
        >>> RLHFConfig(seed=2, **{"ppo.steps": 50}).ppo.steps
        50
        >>> RLHFConfig(**{"ppo.stepz": 50})
        Traceback (most recent call last):
        rlhf_sentiment.config.ConfigError: params.yaml: ppo.stepz: unknown key; did you mean steps?
    """

    def __init__(self, **changes: Any) -> None:
        """
        Args:
            changes: values by key, such as `seed=2` or `**{"ppo.steps": 50}`.
        """
        path = Path("params.yaml")
        self._read(path if path.is_file() else ROOT / path, changes)

    @classmethod
    def from_file(cls, path: str | Path, **changes: Any) -> Self:
        """The settings of another file, which is complete, as those in profiles/ are; with some changed.

        Raises:
            ConfigError: as above; no such file.

        Example:
            >>> RLHFConfig.from_file("profiles/imdb-local.yaml", **{"ppo.steps": 50}).data.source
            'data/raw/imdb'
        """
        config = cls.__new__(cls)
        config._read(Path(path), changes)
        return config

    def changed(self, **changes: Any) -> Self:
        """These settings with some changed.

        Raises:
            ConfigError: as above.

        Example:
            >>> RLHFConfig().changed(**{"ppo.critic": "shared"}).ppo.critic
            'shared'
        """
        config = type(self).__new__(type(self))
        config._check(_with(self.model_dump(), changes), Path("settings"))
        return config

    def _read(self, path: Path, changes: Mapping[str, Any]) -> None:
        self._check(_with(read_yaml(path), changes), path)

    def _check(self, tree: dict[str, Any], path: Path) -> None:
        with explained(type(self), path):
            super().__init__(**tree)


def _with(tree: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A tree of settings with the values at some keys, such as ppo.steps, changed."""
    tree = copy.deepcopy(tree)
    for key, value in changes.items():
        *sections, last = key.split(".")
        inner = tree
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                raise ConfigError(f"{key}: {section} is a value, not a section")
        inner[last] = value
    return tree


def run_complete_pipeline(config: RLHFConfig, num_steps: int | None = None) -> "Comparison":
    """Run what is not done yet of the pipeline, from data to report, with these settings.

    Settings that differ are written to params.yaml, which keeps its comments; then DVC runs what they make stale, as
    `make repro` does. A run that was stopped goes on from its last checkpoint.

    Args:
        num_steps: PPO steps, in place of `config.ppo.steps`.

    Returns:
        What `run_evaluation` returns.

    Raises:
        StageError: the current folder is no repository of this project; a stage failed, and said why.
        ConfigError: the number of steps is none.

    Example:
        >>> comparison = run_complete_pipeline(RLHFConfig(), num_steps=3)  # doctest: +ELLIPSIS
        params.yaml: ppo.steps: ... becomes 3
        >>> -1 <= comparison.figures["improvement_over_sft"]["mean_positive"] <= 1
        True
    """
    from .comparison import run_evaluation

    require_repository()
    if num_steps is not None:
        config = config.changed(**{"ppo.steps": num_steps})
    write_params(config)
    _run("python", "stages/mend.py")
    _run("dvc", "repro")
    return run_evaluation(config)


def require_repository() -> None:
    """
    Raises:
        StageError: the current folder is no repository of this project; it says where one is.
    """
    absent = [name for name in ("dvc.yaml", ".dvc", "stages/ppo.py") if not Path(name).exists()]
    if absent:
        raise StageError(
            f"{Path.cwd()} is no repository of this project ({', '.join(absent)} missing); the pipeline runs at a root: "
            f"os.chdir({str(ROOT)!r})"
        )


def write_params(config: Params, path: Path = Path("params.yaml")) -> None:
    """Bring params.yaml to these settings, line by line where they differ, and print each of them."""
    from ruamel.yaml import YAML
    from ruamel.yaml.representer import RoundTripRepresenter

    class Nulls(RoundTripRepresenter):
        """Writes null as params.yaml does."""

    Nulls.add_representer(type(None), lambda self, _: self.represent_scalar("tag:yaml.org,2002:null", "null"))
    file = YAML()
    file.Representer = Nulls
    file.preserve_quotes, file.width, file.default_flow_style = True, 128, None
    differing = differences(read_yaml(path), config.model_dump(mode="json"))
    if not differing:
        return
    tree = file.load(path)
    for key, (old, new) in differing.items():
        *sections, last = key.split(".")
        inner = tree
        for section in sections:
            inner = inner[section]
        inner[last] = new
        print(f"{path}: {key}: {old!r} becomes {new!r}")
    with writing(path) as aside:
        file.dump(tree, aside)


def differences(old: dict[str, Any], new: dict[str, Any], above: str = "") -> dict[str, tuple[Any, Any]]:
    """Keys such as ppo.steps whose values differ, with both values; of sections with other keys, the whole section."""
    found: dict[str, tuple[Any, Any]] = {}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict) and value.keys() == before.keys():
            found |= differences(before, value, f"{above}{key}.")
        elif value != before:
            found[above + key] = before, value
    return found


def _run(*command: str) -> None:
    """Run a command with this Python's programs first; in a notebook, what it prints goes to the cell.

    Raises:
        StageError: it failed.
    """
    own = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    variables = os.environ | {"PATH": own} | ({WATCHED: "1"} if in_notebook() else {})
    piped: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} if in_notebook() else {}
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with subprocess.Popen(command, env=variables, **piped) as process:  # noqa: S603 (own words)
        try:
            while process.stdout is not None and (said := os.read(process.stdout.fileno(), 1 << 16)):
                print(decoder.decode(said), end="", flush=True)
            status = process.wait()
        except KeyboardInterrupt:  # a terminal sends it to all of them, others to this process alone
            for child in psutil.Process(process.pid).children(recursive=True):
                child.send_signal(signal.SIGINT)  # a stage that trains writes a checkpoint first
            process.communicate()
            raise
    if status:
        raise StageError(f"`{' '.join(command)}` failed with exit status {status}; what it printed says why")
