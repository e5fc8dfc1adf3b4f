"""What differs between two revisions: stages and answers."""

import math
from typing import Any, NamedTuple

from revisions import Side, finite, params_of

NEW, REMOVED = "new stage", "removed stage"


class Rerun(NamedTuple):
    """A stage whose entry in dvc.lock differs.

    Attributes:
        causes: what differs among its command, its code, its params and its inputs, or that it is new or removed.
        outs: the outs whose bytes differ.
    """

    stage: str
    causes: dict[str, list[str]]
    outs: list[str]


def reruns(before: Side, after: Side) -> list[Rerun]:
    """Return the stages that ran again, in the order of dvc.lock. Removed stages follow.

    A stage without causes had the same command, code, params and inputs, and other bytes. Its processor, its libraries or its
    number of threads differed.
    """
    names = [*after.stages, *(name for name in before.stages if name not in after.stages)]
    entries = [(name, before.stages.get(name), after.stages.get(name)) for name in names]
    found = [_rerun(name, old, new) for name, old, new in entries if old != new]
    return [one for one in found if one.causes or one.outs]


def _rerun(name: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> Rerun:
    if old is None or new is None:
        return Rerun(name, {NEW if old is None else REMOVED: []}, [])
    paths = _unequal(_hashes(old, "deps"), _hashes(new, "deps"))
    causes = {
        "command": [new["cmd"]] if old.get("cmd") != new.get("cmd") else [],
        "code": [path for path in paths if path.startswith("stages/")],
        "params": _unequal(params_of(old), params_of(new)),
        "inputs": [path for path in paths if not path.startswith("stages/")],
    }
    return Rerun(
        name,
        {cause: all_of for cause, all_of in causes.items() if all_of},
        _unequal(_hashes(old, "outs"), _hashes(new, "outs")),
    )


def _hashes(entry: dict[str, Any], kind: str) -> dict[str, Any]:
    return {one["path"]: one.get("md5") for one in entry.get(kind, ())}


def _unequal(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return the keys, in order, that one side lacks or that differ."""
    missing = object()
    return sorted(key for key in old.keys() | new.keys() if old.get(key, missing) != new.get(key, missing))


class Answer(NamedTuple):
    """The answers of the RLHF model to one prompt, with the judge's P(positive) of each."""

    kind: str
    prompt: str
    before: str
    after: str
    positive_before: float
    positive_after: float


def answers(before: Side, after: Side) -> tuple[list[Answer], int, int]:
    """Return three answers that changed, the number of all that changed, and the number of prompts that both revisions list.

    The three have the largest fall, the median change and the largest rise of P(positive). Ties stay in the file's order. Where
    no answer fell or rose, the first or the last of the three is called otherwise.
    """
    shared = [prompt for prompt in after.answers if prompt in before.answers]
    changed = [_answer(prompt, before.answers[prompt], after.answers[prompt]) for prompt in shared]
    changed = [one for one in changed if one.before != one.after and math.isfinite(_gain(one))]
    ordered = sorted(changed, key=_gain)
    if not ordered:
        return [], 0, len(shared)
    first = "largest fall" if round(_gain(ordered[0]), 2) < 0 else "smallest rise"
    last = "largest rise" if round(_gain(ordered[-1]), 2) > 0 else "smallest fall"
    places = {0: first, len(ordered) - 1: last, (len(ordered) - 1) // 2: "median change"}
    if len(ordered) < 3:
        places = dict.fromkeys(range(len(ordered)), "changed")
    return [ordered[place]._replace(kind=kind) for place, kind in sorted(places.items())], len(changed), len(shared)


def _gain(answer: Answer) -> float:
    return answer.positive_after - answer.positive_before


def _answer(prompt: str, old: dict[str, str], new: dict[str, str]) -> Answer:
    scores = [finite(row["rlhf_positive"]) for row in (old, new)]
    first, second = (math.nan if score is None else score for score in scores)
    return Answer("", prompt, old["rlhf"], new["rlhf"], first, second)
