"""What git holds of a revision, and the same files of the workspace: metrics, params, dvc.lock, pins and listed answers."""

import csv
import hashlib
import io
import json
import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from rlhf_sentiment.engine.environment import LIBRARIES
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.messages import shown

CURVES = ("plots/sft.csv", "plots/reward.csv", "plots/ppo.csv")
FILES = ("params.yaml", "dvc.lock", "requirements.txt", "plots/samples.csv", *CURVES)
_READS_ALL = "check"  # the stage that reads every setting, and runs before the others


class Side(NamedTuple):
    """What a revision says.

    Attributes:
        metrics: each finite number of metrics/FILE.json, by `FILE.key.key`.
        params: each value of params.yaml, by `section.key`.
        stages: the entries of dvc.lock, by stage.
        pins: the version of each library in requirements.txt that can change a byte, by name.
        answers: the rows of plots/samples.csv, by prompt.
        dtypes: the type of the products of each training stage, which `dtype: auto` leaves to the machine, by stage.
        lock: the MD5 of dvc.lock; empty if there is none.
    """

    metrics: dict[str, float]
    params: dict[str, Any]
    stages: dict[str, dict[str, Any]]
    pins: dict[str, str]
    answers: dict[str, dict[str, str]]
    dtypes: dict[str, str]
    lock: str


def at_commit(commit: str, name: str) -> Side:
    """Return what a commit says. Messages call it `name`."""
    names = git("ls-tree", "-r", "--name-only", commit, "--", "metrics", *FILES).splitlines()
    return side({file: git("show", f"{commit}:./{file}") for file in names}, name)


def in_workspace() -> Side:
    """Return what the files of this folder say."""
    paths = [path for path in (*sorted(Path("metrics").glob("*.json")), *map(Path, FILES)) if path.is_file()]
    return side({path.as_posix(): path.read_text(encoding="utf-8", errors="replace") for path in paths}, "the workspace")


def side(files: dict[str, str], where: str) -> Side:
    """Return what the files of a revision say. A file that is missing says nothing.

    Args:
        files: the content of each file, by its path in the repository.
        where: the name of the revision, for messages.

    Raises:
        StageError: a file is not JSON or not YAML, such as one with conflict markers.
    """
    names = [name for name in files if re.fullmatch(r"metrics/\w+\.json", name)]
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)", files.get("requirements.txt", ""), re.MULTILINE))
    rows = _table(files, "plots/samples.csv")
    curves = {Path(name).stem: next(_table(files, name), {}) for name in CURVES}
    lock = files.get("dvc.lock", "")
    return Side(
        metrics={key: value for name in names for key, value in numbers(_tree(files, name, where), f"{name[8:-5]}.").items()},
        params=flat(_tree(files, "params.yaml", where)),
        stages=_tree(files, "dvc.lock", where).get("stages") or {},
        pins={name: pins[name] for name in LIBRARIES if name in pins},
        answers={row["prompt"]: row for row in rows if row.keys() >= {"prompt", "rlhf", "rlhf_positive"}},
        dtypes={stage: row["dtype"] for stage, row in curves.items() if row.get("dtype")},
        lock=hashlib.md5(f"{lock.rstrip()}\n".encode()).hexdigest() if lock else "",  # noqa: S324 (DVC's hash)
    )


def _table(files: dict[str, str], name: str) -> Iterator[dict[str, str]]:
    return csv.DictReader(io.StringIO(files.get(name, ""), newline=""))


def _tree(files: dict[str, str], name: str, where: str) -> dict[str, Any]:
    """Return the mapping in a file. YAML is read as DVC reads it, so that 1e-05 is a number."""
    try:
        tree = json.loads(files.get(name, "{}")) if name.endswith(".json") else YAML(typ="safe").load(files.get(name, "{}"))
    except (ValueError, YAMLError):
        raise StageError(f"{name} of {where} cannot be read; resolve its conflicts, or restore it from git") from None
    if not isinstance(tree, dict):
        raise StageError(f"{name} of {where} should hold a mapping")
    return tree


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of a tree by `key.key`. An empty list and an empty mapping are None, as params.yaml has them."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        inner = {f"{prefix}{key}": None if value in ([], {}) else value}
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else inner
    return found


def numbers(tree: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the finite numbers of a tree by `key.key`."""
    found = flat(tree, prefix).items()
    return {key: value for key, value in found if type(value) in (int, float) and math.isfinite(value)}


def finite(text: str | None) -> float | None:
    """Return the number in a cell of a CSV, or None if it holds no finite number."""
    try:
        number = float(text or "nan")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def params_of(entry: dict[str, Any]) -> dict[str, Any]:
    """Return the params in an entry of dvc.lock, by `section.key`."""
    return {key: value for file in entry.get("params", {}).values() for key, value in flat(file).items()}


def used(one: Side) -> dict[str, Any]:
    """Return the settings that the stages ran with. Settings that dvc.lock does not have are those of params.yaml."""
    ran = [params_of(entry) for stage, entry in one.stages.items() if stage != _READS_ALL]
    return one.params | {key: value for params in ran for key, value in params.items()}


def not_run(one: Side) -> list[str]:
    """Return the settings of params.yaml with which a stage has not run."""
    ran = [params_of(entry) for stage, entry in one.stages.items() if stage != _READS_ALL]
    return sorted({key for params in ran for key in params if key in one.params and one.params[key] != params[key]})


def commit_of(revision: str) -> str:
    """Return the hash of the commit that `revision` names: a commit, a branch, a tag or an experiment.

    A branch may also be one of origin, as in a fresh clone.

    Raises:
        StageError: there is no such commit in this clone.
    """
    experiments = asked("for-each-ref", "--sort=-committerdate", "--format=%(objectname)", f"refs/exps/*/*/{revision}")
    for name in (revision, f"origin/{revision}", *(experiments or "").splitlines()):
        if found := asked("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}"):
            return found.splitlines()[-1]
    if asked("rev-parse", "--is-inside-work-tree") is None:
        raise StageError("this folder is not in a git repository; run it in a clone")
    if is_shallow():
        raise StageError(
            f"this clone is shallow and lacks {shown(revision)}; run `git fetch --unshallow`, or set fetch-depth: 0 in CI"
        )
    raise StageError(f"there is no revision {shown(revision)}; name a branch, a tag, a commit or an experiment")


def is_shallow() -> bool:
    """Return whether this clone lacks older commits."""
    return asked("rev-parse", "--is-shallow-repository") == "true"


def git(*arguments: str) -> str:
    """Return what git prints, without the last line break.

    Raises:
        StageError: git fails.
    """
    said = asked(*arguments)
    if said is None:
        raise StageError(f"`git {' '.join(arguments)}` failed")
    return said


def asked(*arguments: str) -> str | None:
    """Return what git prints, without the last line break, or None if it fails."""
    done = subprocess.run(["git", *arguments], capture_output=True, check=False)  # noqa: S603, S607 (git of the user)
    return done.stdout.decode("utf-8", "replace").removesuffix("\n") if done.returncode == 0 else None
