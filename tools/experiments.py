"""Print the columns of `dvc exp show` that matter, in 120 characters.

make experiments
python tools/experiments.py -n 3        # with the experiments that began from the last three commits
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from tabulate import tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "stages"))

from metrics import GAIN, Figures, flat, interval, number
from rlhf_sentiment.engine.errors import StageError, one_line_errors
from rlhf_sentiment.engine.messages import Parser, cut, visible
from rlhf_sentiment.evaluation.contestants import CONTESTANTS, TREATMENT

HEADERS = ["experiment", "created", "state", *CONTESTANTS, "over sft", "KL", "perpl.", "dist_2", "settings"]
SIDES = ["left"] * 3 + ["right"] * len(CONTESTANTS) + ["left"] + ["right"] * 3 + ["left"]
WIDTH = 120
LEGEND = (
    "base, sft, rlhf: mean P(positive). over sft: improvement of rlhf, with its interval over prompts. KL: nats per response."
)
NONE = "No experiment began from here. To run one: dvc exp run -S ppo.steps=200"
Entry = dict[str, Any]


def shown_by_dvc(commits: int) -> list[Entry]:
    """Return what `dvc exp show --json` prints: the workspace, and the last commits with the experiments of each.

    Raises:
        StageError: dvc fails.
    """
    command = [sys.executable, "-m", "dvc", "exp", "show", "--json", "-n", str(commits)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)  # noqa: S603 (no shell)
    if done.returncode:
        said = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        raise StageError(f"dvc exp show: {said[0] if said else f'exit status {done.returncode}'}")
    found: list[Entry] = json.loads(done.stdout)
    return found


def rows_of(entries: list[Entry]) -> Iterator[list[str]]:
    """Yield a row for the workspace, and for each commit with its experiments, the oldest experiment first."""
    workspace, *commits = entries
    yield row("workspace", workspace, "", commits[0] if commits else workspace)
    for commit in commits:
        yield row(commit["name"] or commit["rev"][:7], commit, "commit", commit)
        experiments = commit["experiments"] or []
        for one in sorted(experiments, key=lambda one: (one["revs"][0]["data"] or {}).get("timestamp") or ""):
            newest = one["revs"][0]
            state = "failed" if newest["error"] else (one["executor"] or {}).get("state", "done")
            yield row(one["name"] or newest["rev"][:7], newest, state, commit)


def row(name: str, entry: Entry, state: str, commit: Entry) -> list[str]:
    """Return the cells of a row.

    Args:
        name: of the experiment or commit.
        entry: what DVC says of it.
        state: of an experiment, such as done or queued. DVC gives an unfinished experiment the figures of its commit, so these
            are left out.
        commit: the last cell has the settings that differ from this commit's.
    """
    data = entry["data"] or {}
    figures = {} if state in ("queued", "running", "failed") else figures_of(data)
    after = f"evaluation.{TREATMENT}"
    return [
        cut(visible(name), 16),
        f"{datetime.fromisoformat(data['timestamp']):%m-%d %H:%M}" if data.get("timestamp") else "",
        state,
        *(number(figures.get(f"evaluation.{one}.mean_positive"), 3) for one in CONTESTANTS),
        f"{number(figures.get(f'{GAIN}.mean_positive'), 3, '+')} {interval(figures, f'{GAIN}.ci', 2)}",
        number(figures.get(f"{after}.kl_to_sft"), 2),
        number(figures.get(f"{after}.perplexity"), 2),
        number(figures.get(f"{after}.distinct_2"), 3),
        changed(settings_of(commit["data"] or {}), settings_of(data)),
    ]


def figures_of(data: Entry) -> Figures:
    """Return the numbers of metrics/evaluation.json."""
    return flat(data.get("metrics", {}).get("metrics/evaluation.json", {}).get("data"), "evaluation")


def settings_of(data: Entry) -> dict[str, str]:
    """Return the settings of params.yaml by their whole names, such as `ppo.steps`."""

    def named(tree: Any, name: str) -> Iterator[tuple[str, str]]:
        if isinstance(tree, dict) and tree:
            for key, value in tree.items():
                yield from named(value, f"{name}.{key}" if name else key)
        else:
            yield name, tree if isinstance(tree, str) else json.dumps(tree)

    return dict(named(data.get("params", {}).get("params.yaml", {}).get("data"), ""))


def changed(before: dict[str, str], after: dict[str, str]) -> str:
    """Return the settings of `after` that differ, such as `ppo.steps=200 seed=2`."""
    return " ".join(f"{key}={visible(value)}" for key, value in after.items() if before.get(key) != value)


def table(rows: list[list[str]]) -> str:
    """Return a table of at most 120 characters. Settings that do not fit are shortened."""

    def drawn(longest: int) -> str:
        cells = [[*others, cut(settings, longest)] for *others, settings in rows]
        return tabulate(cells, HEADERS, tablefmt="plain", disable_numparse=True, colalign=SIDES)

    others = max(map(len, drawn(0).splitlines())) - len(HEADERS[-1])
    return drawn(WIDTH - others)


def main() -> None:
    """Print the table."""
    parser = Parser("experiments", description=__doc__)
    parser.add_argument("-n", type=int, default=1, metavar="COMMITS", help="the number of commits, newest first (default 1)")
    commits = parser.parse_args().n
    with one_line_errors("experiments"):
        entries = shown_by_dvc(commits)
        print(table(list(rows_of(entries))))
        print(LEGEND)
        if not any(entry["experiments"] for entry in entries):
            print(NONE)


if __name__ == "__main__":
    main()
