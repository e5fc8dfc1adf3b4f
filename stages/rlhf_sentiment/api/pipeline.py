"""The pipeline from Python: a run of it is DVC's, so that nothing is done twice.

    from rlhf_sentiment import RLHFConfig, run_complete_pipeline
    run_complete_pipeline(RLHFConfig(), num_steps=50)

The current folder is the world, as it is for the stages: a notebook at the repository's root needs no more than this.
"""

import codecs
import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from ..engine.errors import StageError
from ..engine.progress import WATCHED, in_notebook
from .comparison import Comparison, run_evaluation
from .config import RLHFConfig, write_params
from .repository import require_repository


def run_complete_pipeline(config: RLHFConfig, num_steps: int | None = None) -> Comparison:
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
    require_repository(config)
    if (busy := _dvc_at_work()) is not None:  # it would record these settings for what it made with the old ones
        raise StageError(f"process {busy} of dvc is at work here; call again when it has ended")
    if num_steps is not None:
        config = config.changed(**{"ppo.steps": num_steps})
    write_params(config)
    _run("python", "stages/mend.py")
    _run("dvc", "repro")
    return run_evaluation(config)


def _dvc_at_work() -> int | None:
    """The process of a dvc that runs a stage here, by the file in which DVC notes it."""
    try:
        noted = json.loads(Path(".dvc/tmp/rwlock").read_text(encoding="utf-8"))
        writers = {writer["pid"] for writer in noted["write"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    for process in psutil.process_iter(["pid", "cmdline"]):  # what a killed dvc noted stays there
        if process.pid in writers and "dvc" in {Path(word).name for word in process.info["cmdline"] or ()}:
            return process.pid
    return None


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
        lines = re.findall(r"^[a-z]+(?:@\w+)?: (?!warning|reads|wrote|goes on|waits|.*%\|).*", tail, re.MULTILINE)
        why = lines[-1] if lines else f"exit status {status}; what it printed says why"
        raise StageError(f"`{' '.join(command)}` failed: {why}")
