"""Merge what a merge without the drivers left in conflict: dvc.lock, metrics/ and plots/. `make resolve` then runs the stages.

dvc.lock is merged as the driver does it (tools/merge_lock.py). Of a file in metrics/ or plots/, our version stays. The stage
that wrote it has changed on both sides, so DVC runs it and writes the file again.

Conflicts in files that stages read need a person, so they are refused.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from merge_lock import merge

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "stages"))
from rlhf_sentiment.engine.errors import StageError, one_line_errors  # noqa: E402
from rlhf_sentiment.engine.messages import one_line  # noqa: E402

NAME = "resolve"
LOCK = "dvc.lock"
READ = ["params.yaml", "dvc.yaml", "stages", "prompts", "data", "models"]
WRITTEN = ("metrics/", "plots/")

Versions = dict[int, str]
"""The object of each version that git has of a file in conflict. 1: base, 2: ours, 3: theirs."""


def main() -> None:
    """Merge the files that the pipeline writes, and add them to git's index."""
    argparse.ArgumentParser(
        prog="python tools/resolve.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    with one_line_errors(NAME):
        if marked := marked_files(READ):
            raise StageError(f"{', '.join(marked)}: resolve the conflict marks first, then run `make resolve` again")
        conflicts = conflicting_files()
        if LOCK in conflicts:
            merge_lock(conflicts[LOCK])
        elif marked_files([LOCK]):
            refuse_marked_lock()
        kept = [path for path in conflicts if path.startswith(WRITTEN)]
        for path in kept:
            keep_ours(path, conflicts[path])
        if kept:
            files = "1 file" if len(kept) == 1 else f"{len(kept)} files"
            print(f"{NAME}: kept our version of {files} in metrics/ and plots/, for `dvc repro` to write again")


def marked_files(paths: list[str]) -> list[str]:
    """Return the tracked files below `paths` that have the marks of a conflict."""
    return git("grep", "-lIE", "^(<<<<<<<|>>>>>>>) ", "--", *paths, statuses=(0, 1)).decode().splitlines()


def conflicting_files() -> dict[str, Versions]:
    """Return the files that git has in conflict."""
    conflicts: dict[str, Versions] = {}
    for line in git("ls-files", "--unmerged", "-z").decode().split("\0")[:-1]:
        about, path = line.split("\t", 1)
        _, name, number = about.split()
        conflicts.setdefault(path, {})[int(number)] = name
    return conflicts


def merge_lock(versions: Versions) -> None:
    """Merge dvc.lock from the versions that git has.

    Raises:
        StageError: one version is damaged, or one side deleted the file.
    """
    if deleted := [side for number, side in ((2, "our"), (3, "their")) if number not in versions]:
        advice = f"keep it: `git add {LOCK}`, or delete it: `git rm {LOCK}`; then run `make resolve` again"
        raise StageError(f"{deleted[0]} side deleted {LOCK}, and the other side changed it; {advice}")
    contents = [git("cat-file", "blob", versions[number]) if number in versions else b"" for number in (1, 2, 3)]
    try:
        merged = merge(*contents)
    except StageError as error:
        advice = f"`git checkout --ours {LOCK}` or `--theirs`, then `git add {LOCK}` and `make resolve`"
        raise StageError(f"{error}; keep the version of one side: {advice}") from None
    Path(LOCK).write_bytes(merged.content)
    git("add", LOCK)
    without = f" without {', '.join(merged.removed)}, for `dvc repro` to run" if merged.removed else ""
    print(one_line(f"{NAME}: {LOCK} merged{without}"))


def refuse_marked_lock() -> None:
    """Say how to restore a dvc.lock with the marks of a conflict that git takes for resolved.

    Raises:
        StageError: always.
    """
    undo = git("ls-files", "--resolve-undo", LOCK)  # git forgets it, for example in a clone
    advice = f"`git checkout --merge {LOCK}`" if undo else f"`git checkout HEAD~1 {LOCK}`"
    raise StageError(f"{LOCK} has conflict marks, but git takes it for resolved; run {advice}, then `make resolve` again")


def keep_ours(path: str, versions: Versions) -> None:
    """Keep our version of a file. It is removed where our side removed it."""
    if 2 in versions:
        git("checkout", "--ours", "--", path)
        git("add", "--", path)
    else:
        git("rm", "--quiet", "--", path)


def git(*arguments: str, statuses: tuple[int, ...] = (0,)) -> bytes:
    """Return the output of git.

    Raises:
        StageError: its exit status is none of `statuses`.
    """
    done = subprocess.run(["git", *arguments], capture_output=True, check=False)  # noqa: S603, S607 (arguments of this file)
    if done.returncode not in statuses:
        raise StageError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


if __name__ == "__main__":
    main()
