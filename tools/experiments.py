"""Print the columns of `dvc exp show` that matter, in 120 characters.

make experiments
python tools/experiments.py -n 3        # with the experiments that began from the last three commits
"""

import json
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from tabulate import DataRow, TableFormat, tabulate

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "stages"))

from metrics import GAIN, Figures, interval, number, stale
from revisions import in_workspace, numbers
from rlhf_sentiment.engine.errors import StageError, one_line_errors
from rlhf_sentiment.engine.messages import Parser, cut, visible
from rlhf_sentiment.evaluation.contestants import CONTESTANTS, TREATMENT

HEADERS = ["experiment", "created", "state", *CONTESTANTS, "over sft", "KL", "perpl.", "dist_2", "settings"]
SIDES = ["left"] * 3 + ["right"] * len(CONTESTANTS) + ["left"] + ["right"] * 3 + ["left"]
NARROW = TableFormat(None, None, None, None, DataRow("", " ", ""), DataRow("", " ", ""), 0, None)  # columns with one space
WIDTH, NAME = 120, 30  # characters of a line, and of a name
LEGEND = "base, sft, rlhf: mean P(positive). over sft: rlhf - sft, with its interval over prompts. KL: nats per response."
NONE = "No experiment began from here. To run one: dvc exp run -S ppo.steps=200"
Entry = dict[str, Any]
Row = tuple[list[str], dict[str, str]]  # cells, and the settings that the last cell shows


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


def rows_of(entries: list[Entry]) -> Iterator[Row]:
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


def row(name: str, entry: Entry, state: str, commit: Entry) -> Row:
    """Return the cells of a row, and the settings that differ from those of its commit.

    Args:
        name: of the experiment or commit.
        entry: what DVC says of it.
        state: of an experiment, such as done or queued. DVC gives an unfinished experiment the figures of its commit, so these
            are left out.
        commit: the one that the experiment began from.
    """
    data = entry["data"] or {}
    figures = {} if state in ("queued", "running", "failed") else figures_of(data)
    after = f"evaluation.{TREATMENT}"
    cells = [
        cut(visible(name), NAME),
        f"{datetime.fromisoformat(data['timestamp']):%m-%d %H:%M}" if data.get("timestamp") else "",
        state,
        *(number(figures.get(f"evaluation.{one}.mean_positive"), 3) for one in CONTESTANTS),
        f"{number(figures.get(f'{GAIN}.mean_positive'), 3, '+')} {interval(figures, f'{GAIN}.ci', 2)}".strip(),
        number(figures.get(f"{after}.kl_to_sft"), 2),
        number(figures.get(f"{after}.perplexity"), 2),
        number(figures.get(f"{after}.distinct_2"), 3),
    ]
    return cells, changed(settings_of(commit["data"] or {}), settings_of(data))


def figures_of(data: Entry) -> Figures:
    """Return the numbers of metrics/evaluation.json."""
    return numbers(data.get("metrics", {}).get("metrics/evaluation.json", {}).get("data") or {}, "evaluation.")


def settings_of(data: Entry) -> dict[str, str]:
    """Return the settings of params.yaml by their whole names, such as `ppo.steps`."""

    def named(tree: Any, name: str) -> Iterator[tuple[str, str]]:
        if isinstance(tree, dict) and (tree or not name):
            for key, value in tree.items():
                yield from named(value, f"{name}.{key}" if name else key)
        else:
            yield name, tree if isinstance(tree, str) else json.dumps(tree)

    return dict(named(data.get("params", {}).get("params.yaml", {}).get("data") or {}, ""))


def changed(before: dict[str, str], after: dict[str, str]) -> dict[str, str]:
    """Return the settings of `after` that differ."""
    return {key: visible(value) for key, value in after.items() if before.get(key) != value}


def table(rows: list[Row]) -> str:
    """Return a table of at most 120 characters. Settings that do not fit follow it, by the name of their experiment."""

    def drawn(settings: list[str]) -> str:
        cells = [[*cells, shown] for (cells, _), shown in zip(rows, settings, strict=True)]
        return tabulate([HEADERS, *cells], tablefmt=NARROW, disable_numparse=True, colalign=SIDES)

    room = WIDTH - max(map(len, drawn([""] * len(rows)).splitlines())) + len(HEADERS[-1])
    whole = [" ".join(f"{key}={value}" for key, value in settings.items()) for _, settings in rows]
    below = [f"{cells[0]}: {text}" for (cells, _), text in zip(rows, whole, strict=True) if len(text) > room]
    return "\n".join([drawn([text if len(text) <= room else "see below" for text in whole]), *map(folded, below)])


def folded(line: str) -> str:
    """Return a line as several of at most 120 characters."""
    return textwrap.fill(line, WIDTH, subsequent_indent="  ", break_on_hyphens=False)


def main() -> None:
    """Print the table."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # so that `| head` is no error
    parser = Parser("experiments", description=__doc__)
    parser.add_argument("-n", type=int, default=1, metavar="COMMITS", help="the number of commits, newest first (default 1)")
    commits = parser.parse_args().n
    with one_line_errors("experiments"):
        entries = shown_by_dvc(commits)
        print(table(list(rows_of(entries))))
        print("\n".join([LEGEND, *stale(in_workspace())]))
        if not any(entry["experiments"] for entry in entries):
            print(NONE)


if __name__ == "__main__":
    main()
