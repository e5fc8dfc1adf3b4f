"""Run the pipeline from Python. DVC runs it, so that no stage is repeated without need.

    from rlhf_sentiment import RLHFConfig, run_complete_pipeline
    run_complete_pipeline(RLHFConfig(), num_steps=50)

Paths are relative to the current folder, as they are for the stages. A notebook at the repository's root needs no set-up.
"""

import codecs
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from ..engine.dvc_state import RWLOCK, is_running, writers
from ..engine.errors import StageError
from ..engine.progress import WATCHED, in_notebook
from .comparison import Comparison, run_evaluation
from .config import RLHFConfig, write_params
from .repository import note_run, require_repository


def run_complete_pipeline(config: RLHFConfig, num_steps: int | None = None) -> Comparison:
    """Run the stages that are out of date, from data to report, with these settings.

    First the function writes the settings that differ to params.yaml, and keeps the comments there. Then DVC runs the
    stages that these settings make stale, as `make repro` does. A run that was stopped resumes from its last checkpoint.

    Args:
        config: the settings.
        num_steps: PPO steps, in place of `config.ppo.steps`.

    Returns:
        The result of `run_evaluation`.

    Raises:
        StageError: the current folder is no repository of this project; a stage failed (with its message).
        ConfigError: `num_steps` is no possible number of steps.

    Example:
        >>> comparison = run_complete_pipeline(RLHFConfig(), num_steps=3)  # doctest: +ELLIPSIS
        params.yaml: ppo.steps: ... becomes 3
        ...
        >>> -1 <= comparison.figures["improvement_over_sft"]["mean_positive"] <= 1
        True
    """
    require_repository(config)
    if (busy := _dvc_at_work()) is not None:  # it would record these settings for outputs of the old ones
        raise StageError(f"process {busy} of dvc is at work here; call again when it has ended")
    run = config if num_steps is None else config.changed(**{"ppo.steps": num_steps})
    write_params(run)
    _run("python", "stages/mend.py")
    _run("dvc", "repro")
    note_run(config, run)
    return run_evaluation(config)


def _dvc_at_work() -> int | None:
    """Return the process id of a dvc that runs a stage here. None where no dvc does."""
    noted = RWLOCK.stat().st_mtime if RWLOCK.exists() else 0.0  # a process that began later took over the id of a dead dvc
    return next((pid for pid in writers().values() if is_running(pid, noted)), None)


def _run(*command: str) -> None:
    """Run a command with this Python's folder first in PATH, print its output here, and pass each stop on to it.

    Raises:
        StageError: the command failed. The message has the last line of a stage.
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
            except KeyboardInterrupt:  # a terminal signals all processes, other programs only this one
                stopped = True
                for one in (*psutil.Process(process.pid).children(recursive=True), process):
                    with suppress(psutil.NoSuchProcess):
                        one.send_signal(signal.SIGINT)  # a stage that trains writes a checkpoint first
    if stopped:
        raise KeyboardInterrupt
    if status:
        lines = re.findall(r"^[a-z]+(?:@\w+)?: (?!warning|reads|wrote|goes on|waits|.*%\||.*\d passed).*", tail, re.MULTILINE)
        why = lines[-1] if lines else f"exit status {status}; the output above says why"
        raise StageError(f"`{' '.join(command)}` failed: {why}")
