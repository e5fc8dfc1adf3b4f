"""The page on the seeds, docs/results/seeds.md, and its figure. Both depend on the kept results alone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tabulate import tabulate

from pipeline_copy import EDITED
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.outputs import writing
from rlhf_sentiment.evaluation.contestants import COMPARISONS, CONTESTANTS
from rlhf_sentiment.evaluation.picture import picture
from seed_results import CURVES, FOLDER, TABLE, read, read_answers
from seed_statistics import CONFIDENCE, RESAMPLES, Spread, by_seed_and_prompt, spread, two_way_interval

PAGE, FIGURE = TABLE.with_suffix(".md"), FOLDER / "curves.png"
FEW = 10  # below this number of seeds, an interval over seeds is rough

_OTHERS = {  # column of the table -> name on the page
    "evaluation.rlhf.kl_to_sft": "KL of RLHF from SFT (nats per response)",
    "evaluation.rlhf.perplexity": "perplexity of RLHF under base",
    "evaluation.rlhf.distinct_2": "distinct bigrams of RLHF",
    "reward.accuracy": "accuracy of the reward model",
}
_PANELS = {  # curve -> title and label
    "score": ("Reward on training prompts", "score of the reward model"),
    "validation_score": ("Reward on validation prompts", "score of the reward model"),
    "kl": ("KL from the fine-tuned model", "nats per response"),
    "entropy": ("Entropy", "nats per token"),
}


def write_page(root: Path) -> Path:
    """Write the page and its figure. Return the path of the page.

    Raises:
        StageError: no seed is kept, or a kept file is missing or damaged.
    """
    rows, curves = read(root, TABLE), read(root, CURVES)
    if not len(rows):
        raise StageError(f"{TABLE}: no seed is kept; `make seeds` trains some")
    if not len(curves):
        raise StageError(f"{CURVES}: no curve is kept; `make seeds` makes it again")
    text = page(rows, positive_of([read_answers(root, seed) for seed in rows["seed"]]))
    draw(root / FIGURE, curves[curves["seed"].isin(rows["seed"])])
    with writing(root / PAGE) as aside:
        aside.write_text(text, encoding="utf-8", newline="\n")
    return PAGE


def positive_of(answers: Sequence[pd.DataFrame]) -> dict[str, np.ndarray]:
    """Return P(positive) by seed and prompt, for the contestants and the prompts that all seeds have.

    Args:
        answers: the judged answers of each seed.

    Returns:
        name of the contestant -> means over the answers to a prompt. (S, N)

    Raises:
        StageError: the seeds have no prompt in common.
    """
    means = [table.groupby(["model", "prompt"], sort=False)["classifier_positive"].mean() for table in answers]
    shared = [name for name in CONTESTANTS if all(name in one for one in means)]
    positive = {name: by_seed_and_prompt([one[name].to_dict() for one in means]) for name in shared}
    if not any(values.size for values in positive.values()):
        raise StageError(
            f"{TABLE}: its seeds have no prompt in common; `make seeds` with all of them trains them on the same data"
        )
    return positive


def page(rows: pd.DataFrame, positive: dict[str, np.ndarray]) -> str:
    """Return the page.

    Args:
        rows: the table of the seeds.
        positive: name of the contestant -> P(positive) by seed and prompt. (S, N)
    """
    seeds = len(rows)
    differences = {
        f"{CONTESTANTS[after].title} - {CONTESTANTS[before].title}": positive[after] - positive[before]
        for after, before in COMPARISONS.values()
        if {after, before} <= positive.keys()
    }
    measured = {CONTESTANTS[name].title: values for name, values in positive.items()} | differences
    prompts = next(iter(positive.values())).shape[1]
    these = "This seed" if seeds == 1 else f"Each of these {seeds} seeds"
    lines = [
        "# Results over seeds",
        "",
        f"{these} trains every model again. The data, the judge and the {prompts} prompts stay the same.",
        f"`make seeds` made this page from the tables below {FOLDER}. {_origin(rows)}",
        "",
        "## Mean P(positive)",
        "",
        *_table(measured),
        "",
        "SD is the standard deviation between seeds, and IQM the interquartile mean (2108.13264). The intervals are",
        f"{100 * CONFIDENCE:g} % intervals of the pigeonhole bootstrap (Owen 2007, doi 10.1214/07-AOAS122). Each of its",
        f"{RESAMPLES} resamples draws seeds and prompts. {_caution(seeds)}",
        "",
        "## Other figures",
        "",
        *_plain_table({name: rows[column].dropna() for column, name in _OTHERS.items() if column in rows}),
        "",
        "## Learning curves",
        "",
        "The lines are means over the seeds, and the bands reach from the lowest to the highest seed.",
        f"`{CURVES}` has the values.",
        "",
        f"![Learning curves]({FIGURE.relative_to(PAGE.parent).as_posix()})",
        "",
        "## The runs",
        "",
        *_runs(rows, positive),
        "",
    ]
    return "\n".join(lines)


def _origin(rows: pd.DataFrame) -> str:
    commits = sorted(set(rows["commit"]))
    said = (
        f"It belongs to commit {commits[0]}." if len(commits) == 1 else "The seeds belong to different commits (see the runs)."
    )
    if any(commit.endswith(EDITED) for commit in commits):
        said += f" `{EDITED}` means that code or settings had edits that the commit does not have."
    return said


def _caution(seeds: int) -> str:
    if seeds == 1:
        return "With one seed, they say nothing about other seeds."
    return f"With only {seeds} seeds, they are rough, and rather too narrow." if seeds < FEW else ""


def _table(measured: dict[str, np.ndarray]) -> list[str]:
    body = []
    for name, values in measured.items():
        low, high = two_way_interval(values)
        body.append([name, *_cells(spread(values.mean(axis=1))), f"[{low:z.3f}, {high:z.3f}]"])
    return _markdown(["", "mean", "SD", "lowest", "highest", "IQM", "interval"], body)


def _plain_table(measured: dict[str, pd.Series]) -> list[str]:
    body = [[name, *_cells(spread(values.tolist()))] for name, values in measured.items() if len(values)]
    return _markdown(["", "mean", "SD", "lowest", "highest", "IQM"], body)


def _cells(found: Spread) -> list[str]:
    return ["" if np.isnan(value) else f"{value:z.3f}" for value in found]


def _runs(rows: pd.DataFrame, positive: dict[str, np.ndarray]) -> list[str]:
    means = {name: values.mean(axis=1) for name, values in positive.items()}
    body = [
        [
            str(row["seed"]),
            *(f"{values[place]:.3f}" for values in means.values()),
            row["commit"][:7] + row["commit"][40:],
            row["lock"],
        ]
        for place, row in enumerate(rows.to_dict("records"))
    ]
    return _markdown(["seed", *(CONTESTANTS[name].title for name in means), "commit", "MD5 of dvc.lock"], body)


def _markdown(header: list[str], body: list[list[str]]) -> list[str]:
    align = ["left", *["right"] * (len(header) - 1)]
    return tabulate(body, header, tablefmt="pipe", disable_numparse=True, colalign=align if body else None).splitlines()


def draw(path: Path, curves: pd.DataFrame) -> None:
    """Draw the mean of each curve over the seeds, in a band from the lowest to the highest. Same values, same bytes."""
    with picture(path, len(_PANELS), 3.4, 3.0) as axes:
        for ax, (curve, (title, label)) in zip(axes, _PANELS.items(), strict=True):
            steps = curves[curves["curve"] == curve].groupby("step")["value"].agg(["mean", "min", "max"])
            ax.fill_between(steps.index, steps["min"], steps["max"], color="#56B4E9", alpha=0.4, linewidth=0)
            ax.plot(steps.index, steps["mean"], color="#0072B2")
            ax.set(title=title, xlabel="PPO step", ylabel=label)
