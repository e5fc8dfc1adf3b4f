"""Why the results of the workspace differ from those of a commit: settings, code, inputs, libraries or the machine.

The evidence is the two versions of dvc.lock, the pins of the commit, and runs/environment.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from review_changes import NEW, REMOVED, Rerun, reruns
from revisions import Side, used
from rlhf_sentiment.engine import environment
from rlhf_sentiment.engine.arithmetic import TOO_EARLY
from rlhf_sentiment.engine.elsewhere import why_not_portable
from rlhf_sentiment.engine.messages import cut, listed

LOCK = "dvc.lock"
RESULTS = (LOCK, "metrics", "plots")
_MANUAL = "docs/reproducibility.md"
_PYTHON = "3.11"  # the only version whose bytes are promised
_MOST = 4  # names in a line, besides those of settings


class Found(NamedTuple):
    """What the two versions of dvc.lock say about the difference.

    Attributes:
        ran: the stages whose entries differ.
        settings: keys of params.yaml.
        code: files and folders of stages/, and stages whose entry in dvc.yaml differs.
        inputs: files and folders that no stage writes, such as data/raw.
        unexplained: stages with other bytes, though their command, code, settings and inputs are the same.
        same_models: whether both sides have a model with the same bytes.
    """

    ran: list[Rerun]
    settings: list[str]
    code: list[str]
    inputs: list[str]
    unexplained: list[str]
    same_models: bool


def found_in(before: Side, after: Side) -> Found:
    """Return what the two versions of dvc.lock say. An input that another stage writes is no cause of its own."""
    ran = reruns(before, after)
    made = set(outs(before)) | set(outs(after))
    inputs = [path for path in causes(ran, "inputs") if not any(is_in(path, out) or is_in(out, path) for out in made)]
    stages = [f"{one.stage} ({kind})" for one in ran for kind in (NEW, REMOVED) if kind in one.causes]
    stages += [f"dvc.yaml ({one.stage})" for one in ran if "command" in one.causes]
    old, new = ({path: md5 for path, md5 in outs(one).items() if path.startswith("models/")} for one in (before, after))
    return Found(
        ran=ran,
        settings=causes(ran, "params"),
        code=causes(ran, "code") + stages,
        inputs=inputs,
        unexplained=[one.stage for one in ran if one.outs and not one.causes],
        same_models=bool(old.items() & new.items()),
    )


def reasons(commit: str, before: Side, after: Side, found: Found, touched: Sequence[str]) -> Iterator[str]:
    """Yield a line for each reason.

    Args:
        commit: its hash.
        before, after: the commit and the workspace.
        found: the causes.
        touched: results that are not those of dvc.lock.
    """
    lists = {"settings": listed(found.settings), "code": named(found.code), "inputs": named(found.inputs)}
    lines = [f"other {kind}: {names}" for kind, names in lists.items() if names]
    lines += [f"edited or deleted after the run: {named(touched)}"] if touched else []
    records = [record for stage in found.unexplained or [one.stage for one in found.ran] if (record := recorded(stage))]
    if found.unexplained or not found.same_models:  # another machine or library changes the first model already
        of_machine = list(of_the_machine(found, before, after, records)) if found.ran else []
        lines += of_machine
        if found.unexplained and not of_machine:
            lines.append(
                f"unknown. {named(found.unexplained)} had the command, code, settings, inputs and libraries of commit "
                f"{commit}, and ran where identical bytes are promised ({processor(records)}). If the results of that commit "
                f"were made where bytes are promised, too, this is a fault. Please report it: {_MANUAL}"
            )
    yield from (f"reason: {line}" for line in lines or [f"the results of commit {commit} do not fit its own {LOCK}"])


def of_the_machine(found: Found, before: Side, after: Side, records: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Yield a line for the libraries, the setting `arithmetic` and the machine, each if it can change bytes.

    Args:
        found: the causes.
        before, after: the commit and the workspace.
        records: runs/environment of the stages. Without a record, the libraries of this Python count.
    """
    ran = [record["libraries"] for record in records] or [environment.libraries()]
    versions = {(name, str(version).split("+")[0]) for one in ran for name, version in one.items()}
    others = sorted((name, version) for name, version in versions if version != before.pins.get(name, version))
    if others:
        yield f"other libraries: {listed([f'{name} {version} (not {before.pins[name]})' for name, version in others])}"
    pythons = sorted(version for name, version in versions if name == "python" and not version.startswith(f"{_PYTHON}."))
    if pythons:
        yield f"Python {listed(pythons)}. Identical bytes are promised for {_PYTHON} only"
    perhaps = "" if found.unexplained else "perhaps "
    if used(after).get("arithmetic") == "portable":
        early = sorted({name for record in records for name in record["variables"]} & set(TOO_EARLY))
        if early:
            yield f"{listed(early)} in the environment, which stages cannot undo"
        if (why := why_not_portable()) is not None:
            yield f"{perhaps}another kind of machine. Bytes are promised for x86-64 Linux with AVX2, but {why}"
    elif "arithmetic" not in found.settings:
        yield f"{perhaps}another kind of processor. With `arithmetic: fast`, bytes depend on it (here: {processor(records)})"


def recorded(stage: str) -> dict[str, Any]:
    """Return the record of the last run of a stage in this folder. It is empty if there is none, or if it is damaged."""
    try:
        record = json.loads(Path(f"runs/environment/{stage}.json").read_text(encoding="utf-8"))
        return record if all(isinstance(record[key], dict) for key in ("libraries", "variables")) else {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}


def processor(records: Sequence[dict[str, Any]]) -> str:
    """Return the names of the processors on which the stages ran, or of this one if no record has a name."""
    found = dict.fromkeys(str(record["processor"]) for record in records if record.get("processor"))
    return named(list(found) or [str(environment.machine()["processor"] or "without a name")])


def causes(ran: Sequence[Rerun], kind: str) -> list[str]:
    """Return what differs between the stages, each once."""
    return list(dict.fromkeys(name for one in ran for name in one.causes.get(kind, ())))


def outs(one: Side) -> dict[str, str | None]:
    """Return the hash of each out of dvc.lock, by path."""
    return {out["path"]: out.get("md5") for entry in one.stages.values() for out in entry.get("outs", ())}


def is_in(path: str, folder: str) -> bool:
    """Return whether `path` is `folder`, or below it."""
    return path == folder or path.startswith(f"{folder}/")


def is_result(path: str) -> bool:
    """Return whether the pipeline writes a file, so that git shows it as changed after a run."""
    return any(is_in(path, one) for one in RESULTS)


def named(names: Iterable[str]) -> str:
    """Return the first names, whole, and the number of the others."""
    every = [cut(name) for name in names]
    more = f" and {len(every) - _MOST} more" if len(every) > _MOST else ""
    return ", ".join(every[:_MOST]) + more
