"""The pipeline from Python: its settings, and a run of it, which is DVC's, so that nothing is done twice.

    from rlhf_sentiment import RLHFConfig, run_complete_pipeline
    run_complete_pipeline(RLHFConfig(), num_steps=50)

The current folder is the world, as it is for the stages: a notebook at the repository's root needs no more than this.
"""

import codecs
import copy
import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
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
            changes: values by key, such as `seed=2`, `ppo={"steps": 50}` or `**{"ppo.steps": 50}`.
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
        if not path.is_file():
            raise ConfigError(f"{path}: no such file of settings")
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
        whole_section = not sections and isinstance(value, dict) and isinstance(inner.get(key), dict)
        inner[last] = inner[key] | value if whole_section else value
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
        ...
        >>> -1 <= comparison.figures["improvement_over_sft"]["mean_positive"] <= 1
        True
    """
    from .comparison import run_evaluation

    require_repository(config)
    if (busy := _dvc_at_work()) is not None:  # it would record these settings for what it made with the old ones
        raise StageError(f"process {busy} of dvc is at work here; call again when it has ended")
    if num_steps is not None:
        config = config.changed(**{"ppo.steps": num_steps})
    write_params(config)
    _run("python", "stages/mend.py")
    _run("dvc", "repro")
    return run_evaluation(config)


def require_repository(config: object) -> None:
    """
    Raises:
        StageError: the current folder is no repository of this project, and it says where one is; `config` is no RLHFConfig.
    """
    if not isinstance(config, RLHFConfig):
        raise StageError(f"config should be an RLHFConfig (got {config!r:.60})")
    absent = [name for name in ("dvc.yaml", ".dvc", "stages/ppo.py") if not Path(name).exists()]
    if absent:
        raise StageError(
            f"{Path.cwd()} is no repository of this project ({', '.join(absent)} missing); change to the root of one first: "
            f"os.chdir({str(ROOT)!r})"
        )


def _dvc_at_work() -> int | None:
    """The process of a dvc that runs a stage here, by the file in which DVC notes it."""
    try:
        noted = json.loads(Path(".dvc/tmp/rwlock").read_text(encoding="utf-8"))
        writers = {writer["pid"] for writer in noted["write"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    for process in psutil.process_iter(["pid", "cmdline"]):  # what a killed dvc noted stays there
        if process.pid in writers and "dvc" in {Path(word).name for word in process.info["cmdline"] or ()}:
            return process.pid
    return None


def write_params(config: Params, path: Path = Path("params.yaml")) -> None:
    """Bring params.yaml to these settings, and print each that differs; comments and line ends stay."""
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
    tree = file.load(path.read_text(encoding="utf-8"))
    for key, (old, new) in differing.items():
        *sections, last = key.split(".")
        inner = tree
        for section in sections:
            inner = inner[section]
        inner[last] = new
        print(f"{path}: {key}: {old!r} becomes {new!r}")
    text = io.StringIO()
    file.dump(tree, text)
    with writing(path) as aside:
        aside.write_text(text.getvalue(), encoding="utf-8", newline="\r\n" if b"\r\n" in path.read_bytes() else "\n")


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
    """Run a command with this Python's programs first; what it prints is printed here. Each stop is passed on to it.

    Raises:
        StageError: it failed, with the last that a stage said.
    """
    own = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    watched = {WATCHED: "1", "TQDM_MININTERVAL": "1"} if in_notebook() or sys.stderr.isatty() else {}
    variables = {"PYTHONUNBUFFERED": "1", **os.environ, "PATH": own, **watched}
    decoder, tail, stopped = codecs.getincrementaldecoder("utf-8")("replace"), "", False
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:  # noqa: S603 (own words)
        assert process.stdout is not None  # noqa: S101 (for mypy)
        while True:
            try:
                while said := os.read(process.stdout.fileno(), 1 << 16):
                    text = decoder.decode(said)
                    tail = (tail + text)[-5000:]
                    print(text, end="", flush=True)
                status = process.wait()
                break
            except KeyboardInterrupt:  # a terminal sends it to all of them, others to this process alone
                stopped = True
                for one in (*psutil.Process(process.pid).children(recursive=True), process):
                    with suppress(psutil.NoSuchProcess):
                        one.send_signal(signal.SIGINT)  # a stage that trains writes a checkpoint first
    if stopped:
        raise KeyboardInterrupt
    if status:
        lines = re.findall(r"^[a-z]+: (?!warning|reads|wrote|goes on|waits|.*%\|).*", tail, re.MULTILINE)
        why = lines[-1] if lines else f"exit status {status}; what it printed says why"
        raise StageError(f"`{' '.join(command)}` failed: {why}")
