"""What two revisions say, and what differs between them: what measures the figures, stages and answers.

Everything here is a pure function of the content of files that git holds. `tools/review.py` reads these files.
"""

import csv
import io
import json
import math
import re
from typing import Any, NamedTuple

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from review_figures import finite
from rlhf_sentiment.engine.environment import LIBRARIES
from rlhf_sentiment.engine.errors import StageError

# What the figures are measured with. A change of one of these settings makes two revisions incomparable.
_MEASURES = {
    "prompts": (
        r"data\.(source|seed|hub\..*|columns.*|labels.*|prompts|prompt_words|max_prompt_words|prompts_test|near_duplicate)"
        r"|evaluate\.(split|prompts_file|num_samples|samples_per_prompt)"
    ),
    "sampling of the answers": r"generation\.(max_new_tokens|temperature|top_p)",
    "judge": r"judge\..*|evaluate\.judged|data\.(labelled_texts|labelled_held_out|rating_\w+)",
    "base model": r"base\..*",
    "number of tokens for distinct_2": r"evaluate\.distinct_tokens",
}
_JUDGE = "models/judge"
NEW, REMOVED = "new stage", "removed stage"


class Side(NamedTuple):
    """One of the two revisions.

    Attributes:
        metrics: each number of metrics/FILE.json, by `FILE.key.key`.
        params: each value of params.yaml, by `section.key`.
        stages: the entries of dvc.lock, by stage.
        pins: the version of each library in requirements.txt that can change a byte, by name.
        answers: the rows of plots/samples.csv, by prompt.
    """

    metrics: dict[str, float]
    params: dict[str, Any]
    stages: dict[str, dict[str, Any]]
    pins: dict[str, str]
    answers: dict[str, dict[str, str]]


def side(files: dict[str, str], where: str) -> Side:
    """Return what the files of a revision say. A file that is missing says nothing.

    Args:
        files: the content of each file, by its path in the repository.
        where: the name of the revision, for messages.

    Raises:
        StageError: a file is not JSON or not YAML, such as one with conflict markers.
    """
    names = [name for name in files if re.fullmatch(r"metrics/\w+\.json", name)]
    metrics = {f"{name[8:-5]}.{key}": value for name in names for key, value in _flat(_tree(files, name, where)).items()}
    numbers = {key: value for key, value in metrics.items() if isinstance(value, int | float) and not isinstance(value, bool)}
    pins = dict(re.findall(r"^([\w.-]+)==([\w.]+)", files.get("requirements.txt", ""), re.MULTILINE))
    rows = csv.DictReader(io.StringIO(files.get("plots/samples.csv", ""), newline=""))
    return Side(
        metrics=numbers,
        params=_flat(_tree(files, "params.yaml", where)),
        stages=_tree(files, "dvc.lock", where).get("stages", {}),
        pins={name: pins[name] for name in LIBRARIES if name in pins},
        answers={row["prompt"]: row for row in rows if row.keys() >= {"prompt", "rlhf", "rlhf_positive"}},
    )


def _tree(files: dict[str, str], name: str, where: str) -> dict[str, Any]:
    """Return the mapping in a file. YAML is read as DVC reads it, so that 1e-05 is a number."""
    try:
        tree = json.loads(files.get(name, "{}")) if name.endswith(".json") else YAML(typ="safe").load(files.get(name, "{}"))
    except (ValueError, YAMLError):
        raise StageError(f"{name} of {where} cannot be read; resolve its conflicts, or run `make repro`") from None
    if not isinstance(tree, dict):
        raise StageError(f"{name} of {where} should hold a mapping")
    return tree


def _flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the values of a tree by `key.key`. An empty list and an empty mapping are None, as params.yaml has them."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        inner = {f"{prefix}{key}": None if value in ([], {}) else value}
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else inner
    return flat


def incomparable(before: dict[str, Any], after: dict[str, Any]) -> dict[str, list[str]]:
    """Return what the figures are measured with that differs, each with the params that changed."""
    changed = [key for key, value in after.items() if key in before and before[key] != value]
    found = {what: [key for key in changed if re.fullmatch(pattern, key)] for what, pattern in _MEASURES.items()}
    return {what: keys for what, keys in found.items() if keys}


def other_judge(before: Side, after: Side) -> bool:
    """Return whether both revisions have a judge, and the two judges have different bytes."""
    hashes = [_hashes(one.stages.get("judge", {}), "outs").get(_JUDGE) for one in (before, after)]
    return None not in hashes and hashes[0] != hashes[1]


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
        "params": _unequal(_flat_params(old), _flat_params(new)),
        "inputs": [path for path in paths if not path.startswith("stages/")],
    }
    return Rerun(
        name,
        {cause: all_of for cause, all_of in causes.items() if all_of},
        _unequal(_hashes(old, "outs"), _hashes(new, "outs")),
    )


def _hashes(entry: dict[str, Any], kind: str) -> dict[str, Any]:
    return {one["path"]: one.get("md5") for one in entry.get(kind, ())}


def _flat_params(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for file in entry.get("params", {}).values() for key, value in _flat(file).items()}


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

    The three have the largest fall, the median change and the largest rise of P(positive). Ties stay in the file's order.
    """
    shared = [prompt for prompt in after.answers if prompt in before.answers]
    changed = [_answer(prompt, before.answers[prompt], after.answers[prompt]) for prompt in shared]
    changed = [one for one in changed if one.before != one.after and math.isfinite(_gain(one))]
    ordered = sorted(changed, key=_gain)
    if not ordered:
        return [], 0, len(shared)
    places = {0: "largest fall", len(ordered) - 1: "largest rise", (len(ordered) - 1) // 2: "median change"}
    if len(ordered) < 3:
        places = dict.fromkeys(range(len(ordered)), "changed")
    return [ordered[place]._replace(kind=kind) for place, kind in sorted(places.items())], len(changed), len(shared)


def _gain(answer: Answer) -> float:
    return answer.positive_after - answer.positive_before


def _answer(prompt: str, old: dict[str, str], new: dict[str, str]) -> Answer:
    scores = [finite(row["rlhf_positive"]) for row in (old, new)]
    first, second = (math.nan if score is None else score for score in scores)
    return Answer("", prompt, old["rlhf"], new["rlhf"], first, second)
