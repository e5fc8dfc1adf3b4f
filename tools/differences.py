"""Say which results differ from the commit, why, and how to put the files of the commit back. `make repro` ends with this.

    python tools/differences.py

The results are dvc.lock, metrics/ and plots/. The reasons come from the two versions of dvc.lock and from runs/environment.
The exit status is always 0, because another result is no fault of the run.
"""

import hashlib
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "stages"))

from reasons import LOCK, RESULTS, Found, found_in, is_result, named, outs, reasons
from resolve import READ
from revisions import Side, asked, at_commit, git, in_workspace
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.messages import Parser, one_line

NAME = "repro"


def main() -> None:
    """Print a line for what differs, for each reason, and for what to do."""
    Parser("differences", description=__doc__).parse_args()
    try:
        lines = list(compared())
    except (OSError, StageError) as error:  # no git, or a file of the commit that cannot be read
        lines = [f"the results were not compared with the commit: {error}"]
    for line in lines:
        print(one_line(f"{NAME}: {line}"))


def compared() -> Iterator[str]:
    """Yield the lines for the results of this folder.

    Raises:
        StageError: git fails, or one of the files is damaged.
    """
    if asked("rev-parse", "--is-inside-work-tree") != "true":
        yield "the results were compared with no commit, because this folder is not in a git repository"
        return
    if asked("rev-parse", "--show-prefix") and not any(Path(name).exists() for name in RESULTS):
        yield f"the results were compared with no commit; run this in the folder that has {LOCK}"
        return
    commit = asked("rev-parse", "--short", "--verify", "--quiet", "HEAD")
    if commit is None:
        yield "the results were compared with no commit, because git has none yet"
        return
    if not Path(LOCK).is_file() and asked("cat-file", "-e", f"HEAD:./{LOCK}") is not None:
        yield f"{LOCK} is missing; to put it back: git checkout HEAD -- {LOCK}"
        return
    changed, new = differing()
    if not changed and not new:
        yield f"the results are those of commit {commit}"
        return
    yield from what(commit, changed, new)
    before, after = at_commit("HEAD", f"commit {commit}"), in_workspace()
    found = found_in(before, after)
    touched = [path for path in changed if path != LOCK and outs(after).get(path) != md5(path)]
    if before.stages:
        yield from reasons(commit, before, after, found, touched)
    else:
        yield f"reason: unknown, because commit {commit} has no {LOCK}"
    yield from advice(commit, before, after, found)


def what(commit: str, changed: list[str], new: list[str]) -> Iterator[str]:
    """Yield a line for the files that differ, and one for the new files."""
    if changed:
        number = "1 file differs" if len(changed) == 1 else f"{len(changed)} files differ"
        rest = "; the metrics and plots are the same" if changed == [LOCK] and not new else ""
        yield f"{number} from commit {commit}: {named(changed)}{rest}"
    if new:
        yield f"commit {commit} does not have {named(new)}"


def differing() -> tuple[list[str], list[str]]:
    """Return the results that differ from those of the commit, and the results that the commit does not have."""
    fields = nul_separated(git("diff", "--name-status", "--no-renames", "-z", "--relative", "HEAD", "--", *RESULTS))
    pairs = list(zip(fields[1::2], fields[::2], strict=True))  # path, status
    added = [path for path, status in pairs if status == "A"]
    return [path for path, status in pairs if status != "A"], added + untracked(RESULTS)


def edited() -> list[str]:
    """Return the files that stages read, and that differ from those of the commit."""
    return nul_separated(git("diff", "--name-only", "-z", "--relative", "HEAD", "--", *READ)) + untracked(READ)


def untracked(paths: Iterable[str]) -> list[str]:
    """Return the files below `paths` that git could track, and does not."""
    return nul_separated(git("ls-files", "--others", "--exclude-standard", "-z", "--", *paths))


def nul_separated(text: str) -> list[str]:
    """Return the fields of what git prints with -z."""
    return text.split("\0")[:-1]


def md5(path: str) -> str | None:
    """Return the hash that dvc.lock has of a file, or None if there is no such file."""
    return hashlib.md5(Path(path).read_bytes()).hexdigest() if Path(path).is_file() else None  # noqa: S324 (DVC's hash)


def advice(commit: str, before: Side, after: Side, found: Found) -> Iterator[str]:
    """Yield how to keep the results, and how to put those of the commit back.

    `dvc checkout` removes an output if DVC's cache does not have the version of dvc.lock. So it is named only if the cache has
    every version.
    """
    changed, files = bool(found.settings or found.code or found.inputs), edited()
    if changed:
        older = f". Those of commit {commit} are from before the change" if before.stages else ""
        together = f" together with {named(files)}" if files else older
        yield f"to keep these results, as is usual after such a change: commit them{together}"
    if not (there := nul_separated(git("ls-tree", "--name-only", "-z", "HEAD", "--", *RESULTS))):
        return
    wanted = {path: md5 for path, md5 in outs(before).items() if md5 and not is_result(path) and outs(after).get(path) != md5}
    lacking = not_cached(wanted)
    yield f"to put the files of the commit back: git checkout HEAD -- {' '.join(there)}" + (
        " && dvc checkout" if wanted and not lacking else ""
    )
    if lacking:
        yield (
            f"DVC's cache lacks {named(lacking)} of commit {commit}, so `dvc checkout` would remove yours. `make pull` gets "
            "them from a remote, if there is one. Otherwise yours stay, and `make repro` would run their stages again"
        )
    elif changed:
        yield f"{'your edits of other files stay' if files else 'the change stays'}, so `make repro` would then run again"


def not_cached(wanted: dict[str, str]) -> list[str]:
    """Return the outs that DVC's cache does not have whole, as far as DVC can tell.

    Args:
        wanted: the hash of each out, by path.
    """
    if not wanted:
        return []
    from dvc.repo import Repo
    from dvc_data.hashfile.hash_info import HashInfo
    from dvc_data.hashfile.tree import Tree

    def is_whole(md5: str) -> bool:
        if not cache.exists(md5):
            return False
        files = Tree.load(cache, HashInfo("md5", md5)) if md5.endswith(".dir") else ()
        return all(cache.exists(one.value) for _, (_, one) in (files.iteritems() if files else ()))

    try:
        with Repo(".") as repo:
            cache = repo.cache.local
            return [path for path, md5 in wanted.items() if not is_whole(md5)]
    except Exception:  # DVC's errors are of many kinds, such as a damaged cache
        return list(wanted)


if __name__ == "__main__":
    main()
