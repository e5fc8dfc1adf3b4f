"""Run the pipeline with other settings in a copy of this repository. `seeds` and `sweep` use it.

`dvc exp run --temp` would need no code here. But when each run starts, it takes the edits of the workspace away for a moment,
and what an editor saves in this moment is lost. It also runs the code as it is then, so an edit between two runs mixes two
versions. The copy is made once. It has the committed files, the edits, and the files that git ignores in the folders of users'
files. It uses DVC's cache and the checkpoints of the repository, so that nothing runs twice.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import portalocker

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "stages"))

from rlhf_sentiment.engine.errors import StageError, Stopped  # noqa: E402 (found through the line above)
from rlhf_sentiment.engine.inputs import BROUGHT  # noqa: E402
from rlhf_sentiment.engine.messages import tell  # noqa: E402
from rlhf_sentiment.settings.edit import edited  # noqa: E402

EDITED = "-dirty"  # the end of the name of a commit with edits, as in `git describe --dirty`


class Copy(NamedTuple):
    """A copy of a repository.

    Attributes:
        root: the repository.
        folder: the copy.
        commit: the commit of the copy's code and settings. It ends with `-dirty` if they have edits.
        params: the text of params.yaml.
        lock: the open file of `alone`.
    """

    root: Path
    folder: Path
    commit: str
    params: str
    lock: TextIO


@contextmanager
def alone(name: str, folder: Path) -> Iterator[TextIO]:
    """Hold a folder inside the block, so that no two processes use one copy. Print a line before waiting for another process.

    A dvc that `repro` starts inherits the lock. If its parent is killed, the next run waits until this dvc has ended.

    Args:
        name: the tool, for messages.
        folder: the folder to hold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "a+", encoding="utf-8") as file:
        try:
            portalocker.lock(file, portalocker.LOCK_EX | portalocker.LOCK_NB)
        except portalocker.AlreadyLocked:
            file.seek(0)
            tell(name, f"waits for an earlier run in {folder}, of which process {file.read() or '?'} still works")
            portalocker.lock(file, portalocker.LOCK_EX)
        _write_pid(file, os.getpid())
        yield file


def _write_pid(file: TextIO, pid: int) -> None:
    file.truncate(0)
    file.write(str(pid))
    file.flush()


def copied(root: Path, folder: Path, lock: TextIO) -> Copy:
    """Copy a repository with its edits. An older copy in the folder is deleted.

    Args:
        root: the repository.
        folder: the folder of the copy.
        lock: the open file of `alone`.

    Raises:
        StageError: git or dvc failed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    commit = git(root, "rev-parse", "HEAD").strip()
    git(root, "clone", "--quiet", "--shared", "--no-checkout", str(root), str(folder))
    git(folder, "checkout", "--quiet", "--detach", commit)
    for name in _names(git(folder, "ls-files", "-z")):
        if not (root / name).is_file():
            (folder / name).unlink()
    ours = _names(git(root, "ls-files", "--cached", "--others", "--exclude-standard", "-z"))
    brought = [path.relative_to(root).as_posix() for one in BROUGHT for path in (root / one).rglob("*")]
    for name in {*ours, *brought, ".dvc/config.local"}:
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, folder / name)
    for key, usual in (("user.name", "nobody"), ("user.email", "nobody@localhost")):  # git commits nothing without them
        git(folder, "config", key, git(root, "config", "--default", usual, "--get", key).strip())
    dvc(folder, "config", "--local", "cache.dir", dvc(root, "cache", "dir").strip())
    params = (folder / "params.yaml").read_text(encoding="utf-8")
    return Copy(root, folder, commit + (EDITED if has_edits(root) else ""), params, lock)


def has_edits(root: Path) -> bool:
    """Return whether the code or the settings of a repository differ from its commit."""
    return bool(git(root, "status", "--porcelain", "--", "dvc.yaml", "params.yaml", "stages", *BROUGHT))


def run(copy: Copy, settings: dict[str, Any], name: str, log: Path, began: Callable[[str], None]) -> None:
    """Run the pipeline in a copy, and save the result as an experiment of the repository.

    Args:
        copy: the copy. The results are in its folder afterwards.
        settings: key -> value, for the settings that differ from those of the repository.
        name: of the experiment. An experiment with this name and commit is replaced.
        log: the file for the output of dvc and of the stages.
        began: gets the name of each stage when it begins.

    Raises:
        StageError: the pipeline failed. The message has the reason and the log.
        Stopped: this process was asked to stop. A training stage has written a checkpoint before.
    """
    text = edited(copy.params, {key: (None, value) for key, value in settings.items()})
    (copy.folder / "params.yaml").write_text(text, encoding="utf-8")
    with open(log, "wb") as output, open(log, encoding="utf-8", errors="replace") as written:
        process = subprocess.Popen(
            ["sh", "-c", "python stages/mend.py && exec dvc repro"],  # noqa: S607 (the first in PATH, as for the stages)
            cwd=copy.folder,
            env=_environment(copy.root),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C reaches this process only, which hands it on
            pass_fds=[copy.lock.fileno()],
        )
        _write_pid(copy.lock, process.pid)
        try:
            _follow(process, written, began)
        except Stopped as stopped:
            _stop(process, stopped.number)
            raise
    if process.returncode:
        raise StageError(f"{_reason(log)} (see {log.relative_to(copy.root)})")
    new = [f"--include-untracked={path}" for path in ("dvc.lock", "metrics", "plots") if (copy.folder / path).exists()]
    dvc(copy.folder, "exp", "save", "--force", "--name", name, *new)
    commit = copy.commit.removesuffix(EDITED)
    ref = f"refs/exps/{commit[:2]}/{commit[2:]}/{name}"
    git(copy.root, "fetch", "--quiet", str(copy.folder), f"+{ref}:{ref}")


def _follow(process: subprocess.Popen[bytes], written: TextIO, began: Callable[[str], None]) -> None:
    """Hand on the name of each stage that dvc begins, until dvc ends."""
    rest, ended = "", False
    while not ended:
        ended = process.poll() is not None  # before the last read
        *lines, rest = (rest + written.read()).split("\n")
        for line in lines:
            if line.startswith("Running stage '"):
                began(line.split("'")[1])
        if not ended:
            time.sleep(0.2)


def _stop(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to dvc and its stage, and wait for dvc. A second signal to this process is handed on, too."""
    while process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(Stopped):
            process.wait()


def _reason(log: Path) -> str:
    """Return the line of a log that says why a stage failed: the last one that is not DVC's."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    said = [line for line in lines if not line.startswith("ERROR: failed to reproduce")]
    return said[-1] if said else "dvc repro failed"


def git(folder: Path, *words: str) -> str:
    """Return what a git command prints.

    Raises:
        StageError: it failed. The message has its reason.
    """
    return _output(["git", "-C", str(folder), *words], folder)


def dvc(folder: Path, *words: str) -> str:
    """Return what a dvc command prints.

    Raises:
        StageError: it failed. The message has its reason.
    """
    return _output([sys.executable, "-m", "dvc", *words], folder)


def _output(command: list[str], folder: Path) -> str:
    done = subprocess.run(command, cwd=folder, env=_environment(folder), capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith(("ERROR: ", "fatal: ", "error: "))]
        raise StageError(f"{' '.join(command[:5])}: {lines[-1] if lines else f'exit status {done.returncode}'}")
    return done.stdout


def _names(listed: str) -> list[str]:
    return [name for name in listed.split("\0") if name]


def _environment(root: Path) -> dict[str, str]:
    """Return the variables of a dvc whose stages use this Python, and the checkpoints of the repository `root`."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return own | {"PATH": path, "PYTHONUNBUFFERED": "1", "DVC_ROOT": str(root)}
