"""Print the figures that matter most: those of the workspace, or their change since a commit.

    make metrics
    make metrics BASE=main

The figures come from metrics/, of the workspace and of git. So the command needs no models and no DVC cache.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "stages"))

from rlhf_sentiment.engine.errors import StageError, one_line_errors
from rlhf_sentiment.engine.messages import Parser, cut, shown
from rlhf_sentiment.evaluation.contestants import COMPARISONS, CONTESTANTS, REFERENCE, TREATMENT

Figures = dict[str, float]  # such as `evaluation.rlhf.mean_positive` -> its value


class Shown(NamedTuple):
    """A figure that the command prints.

    Attributes:
        title: in the table.
        key: with the name of its file, or of one contestant.
        digits: after the point.
        bounds: the key of its interval, without `_low` and `_high`. Empty: it has none.
    """

    title: str
    key: str
    digits: int = 3
    bounds: str = ""


BASE = next(iter(CONTESTANTS))
GAINS = {pair: f"evaluation.{key}" for key, pair in COMPARISONS.items()}
GAIN, GAIN_OVER_BASE = GAINS[TREATMENT, REFERENCE], GAINS[TREATMENT, BASE]

OF_CONTESTANT = (
    Shown("mean P(positive)", "mean_positive", bounds="ci"),
    Shown("positive ratio", "positive_ratio", bounds="positive_ratio_ci"),
    Shown("positive ratio, lexicon", "lexicon_positive"),
    Shown("score of the reward model", "reward"),
    Shown("perplexity under base", "perplexity", 2),
    Shown("KL to sft (nats per response)", "kl_to_sft", 2),
    Shown("distinct bigrams", "distinct_2"),
    Shown("tokens per response", "response_tokens", 1),
)
CHANGED = (
    Shown(f"{TREATMENT} - {REFERENCE}: mean P(positive)", f"{GAIN}.mean_positive", bounds=f"{GAIN}.ci"),
    Shown(f"{TREATMENT} - {REFERENCE}: positive ratio", f"{GAIN}.positive_ratio", bounds=f"{GAIN}.positive_ratio_ci"),
    Shown(f"{TREATMENT} - {BASE}: mean P(positive)", f"{GAIN_OVER_BASE}.mean_positive", bounds=f"{GAIN_OVER_BASE}.ci"),
    *(Shown(f"{name}: mean P(positive)", f"evaluation.{name}.mean_positive") for name in (TREATMENT, REFERENCE, BASE)),
    *(Shown(f"{TREATMENT}: {one.title}", f"evaluation.{TREATMENT}.{one.key}", one.digits) for one in OF_CONTESTANT[3:]),
    Shown("accuracy of the reward model", "reward.accuracy", bounds="reward.accuracy"),
)


def figures_of(revision: str | None) -> Figures:
    """Return all numbers of the metrics of the workspace, or of a commit, branch or tag.

    Raises:
        StageError: there is no such commit, it has no metrics of a finished run, or a file of it is not JSON.
    """
    where = "the workspace" if revision is None else shown(revision)
    commit = "" if revision is None else commit_of(revision)
    found: Figures = {}
    for name in ("reward", "judge", "ppo", "evaluation"):
        path = f"metrics/{name}.json"
        text = git("show", f"{commit}:{path}") if commit else _text(Path(path))
        try:
            found |= flat(json.loads(text or "{}"), name)
        except ValueError as error:
            raise StageError(f"{path} of {where}: not JSON: {error}") from None
    if not any(key.startswith("evaluation.") for key in found):
        mend = "name a commit of a finished run" if commit else "run `make repro`"
        raise StageError(f"{where} has no figures in metrics/evaluation.json; {mend}")
    return found


def commit_of(revision: str) -> str:
    """Return the hash of a commit, branch or tag.

    Raises:
        StageError: there is none.
    """
    found = git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if not found:
        raise StageError(f"BASE should be a commit, branch or tag of this repository (got {shown(revision)})")
    return found.split()[-1]


def git(*arguments: str) -> str | None:
    """Return what git prints, or None if it fails."""
    done = subprocess.run(["git", *arguments], capture_output=True, encoding="utf-8", check=False)  # noqa: S603, S607 (no shell)
    return done.stdout if done.returncode == 0 else None


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def flat(tree: Any, name: str) -> Figures:
    """Return the numbers of a tree, with the names of their keys joined by points."""
    if isinstance(tree, dict):
        return {key: value for inner in tree for key, value in flat(tree[inner], f"{name}.{inner}").items()}
    return {name: tree} if isinstance(tree, int | float) else {}


def of_workspace(figures: Figures) -> Iterator[str]:
    """Yield the lines for the workspace: a row for each figure, and a column for each contestant."""
    rows = []
    for one in OF_CONTESTANT:
        values = {name: figures.get(f"evaluation.{name}.{one.key}") for name in CONTESTANTS}
        gain = figures.get(f"{GAIN}.{one.key}", difference(values[REFERENCE], values[TREATMENT]))
        cells = [number(value, one.digits) for value in values.values()]
        rows.append([one.title, *cells, f"{number(gain, one.digits, '+')} {interval(figures, f'{GAIN}.{one.bounds}')}".strip()])
    yield table(["", *CONTESTANTS, f"{TREATMENT} - {REFERENCE}"], rows)
    reward, judge = (number(figures.get(f"{stage}.accuracy"), 3) for stage in ("reward", "judge"))
    score, steps = number(figures.get("ppo.validation_score"), 2), number(figures.get("ppo.steps"), 0)
    yield f"Held-out accuracy: reward model {reward}, judge {judge}. PPO: {steps} steps, validation score {score}."
    yield f"[low, high]: {level()} interval of the difference, paired by prompt. It says nothing of other seeds."


def of_change(old: Figures, new: Figures, base: str) -> Iterator[str]:
    """Yield the lines for two revisions: a row for each figure, with both values and their difference."""
    rows = []
    for one in CHANGED:
        before, after = old.get(one.key), new.get(one.key)
        values = [number(before, one.digits), number(after, one.digits), number(difference(before, after), one.digits, "+")]
        rows.append([one.title, *values, interval(new, one.bounds)])
    yield table(["", cut(base, 16), "workspace", "change", "[low, high]"], rows)
    yield f"[low, high]: {level()} interval of the workspace's figure (not of the change), over prompts or pairs."


def difference(before: float | None, after: float | None) -> float | None:
    """Return after - before, or None if one of them is absent."""
    return None if before is None or after is None else after - before


def number(value: float | None, digits: int, sign: str = "") -> str:
    """Return a number with some digits after the point, or `-` if there is none."""
    return "-" if value is None else f"{value:{sign}.{digits}f}"


def interval(figures: Figures, bounds: str, digits: int = 3) -> str:
    """Return an interval, or nothing if there is none."""
    low, high = (figures.get(f"{bounds}_{side}") for side in ("low", "high"))
    return "" if low is None or high is None else f"[{low:.{digits}f}, {high:.{digits}f}]"


def level() -> str:
    """Return the level of the intervals in params.yaml, in percent."""
    return f"{100 * yaml.safe_load(Path('params.yaml').read_text(encoding='utf-8'))['evaluate']['confidence']:g} %"


def table(headers: list[str], rows: list[list[str]]) -> str:
    """Return a table of text, with the figures to the right."""
    sides = ["left", *["right"] * (len(headers) - 2), "left"]
    return tabulate(rows, headers, tablefmt="plain", disable_numparse=True, colalign=sides)


def main() -> None:
    """Print the table."""
    parser = Parser("metrics", description=__doc__)
    parser.add_argument("base", nargs="?", metavar="BASE", help="a commit, branch or tag to compare with")
    base = parser.parse_args().base
    with one_line_errors("metrics"):
        new = figures_of(None)
        print("\n".join(of_workspace(new) if base is None else of_change(figures_of(base), new, base)))


if __name__ == "__main__":
    main()
