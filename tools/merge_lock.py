"""Merge dvc.lock entry by entry. Git calls this for each dvc.lock that both sides of a merge changed.

    python tools/merge_lock.py BASE OURS THEIRS NAME

The result replaces OURS. `make setup` names this command in the configuration of the clone, and .gitattributes names the files.

An entry says what a stage read and wrote in one run. So an entry is kept as one side has it, or removed:

- An entry that one side changed, or both in the same way, is kept.
- An entry that both sides changed differently is removed: nobody has run the stage with both changes.
- An entry is removed if it read an output that the merged dvc.lock does not have. So the stages after a removed one are
  removed, too. They stay if both sides got the same output from the removed stage.

DVC runs the stages that have no entry. It compares all other entries with the files and params.yaml, as always.
"""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils.serialize import dumps_yaml, parse_yaml_for_update

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "stages"))
from rlhf_sentiment.engine.errors import StageError, one_line_errors  # noqa: E402
from rlhf_sentiment.engine.messages import tell  # noqa: E402

NAME = "merge_lock"

Entry = dict[str, Any]
Entries = dict[str, Entry]
Version = tuple[str, str | None]
"""The path and the hash of an output."""


class Merged(NamedTuple):
    """A merged dvc.lock.

    Attributes:
        content: the file, as DVC writes it.
        removed: the stages whose entries are in OURS or THEIRS and had to be removed.
    """

    content: bytes
    removed: list[str]


def merge(base: bytes, ours: bytes, theirs: bytes) -> Merged:
    """Merge the contents of three versions of dvc.lock. `base` is empty where both sides added the file.

    Raises:
        StageError: DVC cannot read one of the versions, or both sides changed the datasets.
    """
    if ours == theirs or theirs == base:
        return Merged(ours, [])
    if ours == base:
        return Merged(theirs, [])
    trees = [parsed("base", base) if base else {}, parsed("ours", ours), parsed("theirs", theirs)]
    old, own, other = (tree.pop("stages", None) or {} for tree in trees)
    if _is_changed_twice(*trees):
        raise StageError("both sides changed the datasets of dvc.lock")
    kept, removed = merge_entries(old, own, other)
    return Merged(dumps_yaml(_changed(*trees) | {"stages": kept}).encode(), removed)


def merge_entries(old: Entries, own: Entries, other: Entries) -> tuple[Entries, list[str]]:
    """Merge the entries of base, ours and theirs, by name of the stage.

    Returns:
        The entries in the order of ours, then of theirs, and the names of those that were removed.
    """
    versions = {name: (old.get(name), own.get(name), other.get(name)) for name in own | other}
    twice = {name for name, three in versions.items() if _is_changed_twice(*three)}
    picked = {name: _changed(*three) for name, three in versions.items() if name not in twice}
    entries = {name: entry for name, entry in picked.items() if entry is not None}
    kept = _consistent(entries, own, other, [versions[name] for name in twice])
    return kept, [name for name in versions if name in twice | entries.keys() - kept.keys()]


def parsed(side: str, content: bytes) -> dict[str, Any]:
    """Return the tree of a dvc.lock that DVC can read.

    Raises:
        StageError: DVC cannot read it.
    """
    try:
        tree: dict[str, Any] = parse_yaml_for_update(content.decode(), side)
        COMPILED_LOCKFILE_SCHEMA(tree)
    except Exception:  # damage makes parsers raise anything, also RecursionError and IndexError
        raise StageError(f"dvc.lock of {side} is damaged") from None
    return tree


def _is_changed_twice(base: object, ours: object, theirs: object) -> bool:
    """Return whether both sides changed something, and differently."""
    return base != ours != theirs != base


def _changed(base: Any, ours: Any, theirs: Any) -> Any:
    """Return the version of the side that changed something."""
    return theirs if ours == base else ours


def _consistent(entries: Entries, own: Entries, other: Entries, removed: list[tuple[Any, Any, Any]]) -> Entries:
    """Return the entries that read only outputs which other entries have, or which both sides got from a removed stage.

    Args:
        entries: the entries that are not changed twice, as the side has them that changed them.
        own, other: all entries of each side.
        removed: the three versions of each entry that is changed twice.
    """
    agreed = {version for old, ours, theirs in removed for version in _outs(ours or old) & _outs(theirs or old)}
    lost = {path for _, *sides in removed for one in sides for path, _ in _outs(one)}
    reads = {
        name: [_read(entry, side, lost) for side in (own, other) if side.get(name) == entry] for name, entry in entries.items()
    }
    kept = dict(entries)
    while True:
        known = agreed.union(*map(_outs, kept.values()))
        wrong = [name for name in kept if not any(read <= known for read in reads[name])]
        if not wrong:
            return kept
        for name in wrong:
            del kept[name]


def _read(entry: Entry, side: Entries, lost: set[str]) -> set[Version]:
    """Return the outputs of stages that an entry read.

    An output above or below a dependency counts as the side has it, because its hash is another one than the dependency's.

    Args:
        entry: an entry of `side`.
        side: all entries of a side.
        lost: the paths of the outputs of entries that are changed twice.
    """
    written = set().union(*map(_outs, side.values()))
    deps = {dep["path"]: dep.get("md5") for dep in entry.get("deps", [])}
    nested = {version for version in written for path in deps if _is_within(version[0], path) or _is_within(path, version[0])}
    paths = lost | {path for path, _ in written}
    return nested | {(path, digest) for path, digest in deps.items() if path in paths}


def _outs(entry: Entry | None) -> set[Version]:
    return {(out["path"], out.get("md5")) for out in (entry or {}).get("outs", [])}


def _is_within(path: str, folder: str) -> bool:
    return path.startswith(f"{folder}/")


def install() -> None:
    """Name the drivers of .gitattributes in the configuration of this clone. Outside git this does nothing."""
    if subprocess.run(["git", "rev-parse"], cwd=ROOT, capture_output=True, check=False).returncode:  # noqa: S607 (git as people call it)
        return
    command = shlex.join([sys.executable, str(ROOT / "tools/merge_lock.py")])
    for key, value in {
        "dvc-lock.name": "merge the entries of dvc.lock",
        "dvc-lock.driver": f"{command} %O %A %B %P",
        "dvc-metrics.name": "keep our metrics and plots, which dvc repro writes again",
        "dvc-metrics.driver": "true",
    }.items():
        subprocess.run(["git", "config", f"merge.{key}", value], cwd=ROOT, check=True)  # noqa: S603, S607 (fixed words)


def main() -> None:
    """Read the command line, and merge. The exit status is 1 if the file is left in conflict."""
    parser = argparse.ArgumentParser(
        prog="python tools/merge_lock.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("base", "ours", "theirs"):
        parser.add_argument(name, type=Path, metavar=name.upper())
    parser.add_argument("name", metavar="NAME", help="the file's path in the repository")
    arguments = parser.parse_args()
    files = [arguments.base, arguments.ours, arguments.theirs]
    with one_line_errors(NAME):
        try:
            merged = merge(*(path.read_bytes() for path in files))
        except StageError as error:
            labels = [word for label in ("ours", "base", "theirs") for word in ("-L", label)]
            order = [arguments.ours, arguments.base, arguments.theirs]
            subprocess.run(["git", "merge-file", *labels, *order], check=False)  # noqa: S603, S607 (paths from git)
            raise StageError(f"{error}; git left {arguments.name} in conflict; `make resolve` says what to do") from None
        arguments.ours.write_bytes(merged.content)
    if merged.removed:
        tell(NAME, f"dvc.lock merged without {', '.join(merged.removed)}; run `make resolve` to run them")


if __name__ == "__main__":
    main()
