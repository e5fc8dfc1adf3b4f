"""The page of a sweep, docs/results/sweeps/NAME.md, with its table and its figure."""

import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from optuna.trial import FrozenTrial
from tabulate import tabulate

from rlhf_sentiment.engine.messages import listed
from rlhf_sentiment.engine.outputs import writing
from rlhf_sentiment.engine.records import write_table
from rlhf_sentiment.evaluation.picture import picture
from sweep_spec import Spec

FOLDER = Path("docs/results/sweeps")
SENTIMENT, KL = "evaluation.rlhf.mean_positive", "evaluation.rlhf.kl_to_sft"
_FIGURES = {  # metric -> column of the table
    SENTIMENT: "P(positive)",
    "evaluation.improvement_over_sft.mean_positive": "RLHF - SFT",
    "evaluation.improvement_over_sft.ci_low": "low",
    "evaluation.improvement_over_sft.ci_high": "high",
    KL: "KL",
    "evaluation.rlhf.perplexity": "perplexity",
    "evaluation.rlhf.distinct_2": "distinct bigrams",
}


def write_page(root: Path, file: Path, spec: Spec, trials: Sequence[FrozenTrial], params: dict[str, Any]) -> Path:
    """Write the page, the table and the figure of a sweep. Return the path of the page.

    Args:
        root: the repository.
        file: of the sweep.
        spec: the sweep.
        trials: the finished trials.
        params: the settings of a trial.
    """
    table = table_of(spec, trials)
    name = file.stem
    path = root / FOLDER / f"{name}.md"
    samples = trials[0].user_attrs["metrics"]["evaluation.rlhf.samples"]
    prompts = f"{samples / params['evaluate']['samples_per_prompt']:.0f} validation prompts"
    commits = sorted({trial.user_attrs["commit"] for trial in trials})
    lines = [
        f"# The sweep {name}",
        "",
        chosen(table, spec, prompts, params["seed"]),
        "",
        f"`make sweep SPEC={shlex.quote(_within(root, file))}` made this page. The trials ran at commit {', '.join(commits)}.",
        f"{len(table)} of {spec.wanted} trials are finished. The sampler is {spec.sampler}.",
        f"Trials with more than {spec.max_kl:g} nats of KL come last, and cannot be chosen.",
        "RLHF - SFT has its interval over prompts. They do not distinguish trials that differ by less than its width.",
        "The best of several noisy figures is too high on average, so measure the choice on the test prompts.",
        "",
        *_markdown(table, list(spec.params)),
        "",
        f"![P(positive) against KL]({name}.png)",
        "",
    ]
    write_table(path.with_suffix(".csv"), table)
    draw(path.with_suffix(".png"), table, list(spec.params), spec.max_kl)
    with writing(path) as aside:
        aside.write_text("\n".join(lines), encoding="utf-8", newline="\n")
    return path.relative_to(root)


def _within(root: Path, file: Path) -> str:
    """Return the path of a file in a repository. Of a file elsewhere, only the name: a page has no path of one machine."""
    file, root = file.resolve(), root.resolve()
    return file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name


def table_of(spec: Spec, trials: Sequence[FrozenTrial]) -> pd.DataFrame:
    """Return a row for each trial: those within the bound first, and each part by P(positive), highest first.

    Trials with equal P(positive) are in the order of their KL, and then of their numbers.
    """
    rows = [
        {"trial": trial.number}
        | {key: written(trial.params[key]) for key in spec.params}
        | {column: trial.user_attrs["metrics"].get(metric, math.nan) for metric, column in _FIGURES.items()}
        | {"within": trial.user_attrs["metrics"][KL] <= spec.max_kl}
        for trial in trials
    ]
    return pd.DataFrame(rows).sort_values(
        ["within", "P(positive)", "KL", "trial"], ascending=[False, False, True, True], ignore_index=True
    )


def chosen(table: pd.DataFrame, spec: Spec, prompts: str, seed: int) -> str:
    """Return the sentences on what was chosen.

    Args:
        table: the trials, the best first.
        spec: the sweep.
        prompts: their number and kind.
        seed: of the training runs.
    """
    if not table["within"].any():
        return f"Nothing is chosen: no trial has at most {spec.max_kl:g} nats of KL. The test prompts were not used."
    best = table.iloc[0]
    settings = [f"{key}={best[key]}" for key in spec.params]
    options = " ".join(f"-S {shlex.quote(setting)}" for setting in settings)
    equal = table["trial"][table["within"] & (table["P(positive)"] == best["P(positive)"])].tolist()[1:]
    tie = f" Trial {listed(equal)} has the same. Of equals, the lowest KL and number come first." if equal else ""
    return (
        f"Chosen: `{', '.join(settings)}` (trial {best['trial']}), with P(positive) {best['P(positive)']:.3f} at "
        f"{best['KL']:.2f} nats of KL. Among the trials with at most {spec.max_kl:g} nats, it has the highest P(positive) on "
        f"{prompts}, with seed {seed}.{tie} The test prompts were not used. `dvc exp run {options}` applies it."
    )


def written(value: Any) -> str:
    """Return the value of a setting as params.yaml and `dvc exp run -S` have it."""
    return value if isinstance(value, str) else json.dumps(value)


def _figure(value: float) -> str:
    """Return a figure. Distinct bigrams are absent where the answers have too few tokens."""
    return "" if math.isnan(value) else f"{value:.3f}"


def _short(text: str) -> str:
    """Return a value with four digits, if it is a number with a point."""
    try:
        return text if text.lstrip("-").isdigit() else f"{float(text):.4g}"
    except ValueError:
        return text


def _markdown(table: pd.DataFrame, keys: list[str]) -> list[str]:
    costs = [column for column in ("KL", "perplexity", "distinct bigrams") if table[column].notna().any()]
    gains = table[["RLHF - SFT", "low", "high"]].to_numpy()
    shown = {
        "trial": table["trial"].astype(str),
        **{key: table[key].map(_short) for key in keys},
        "P(positive)": table["P(positive)"].map("{:.3f}".format),
        "RLHF - SFT": [f"{gain:+.3f} [{low:+.3f}, {high:+.3f}]" for gain, low, high in gains],
        **{column: table[column].map(_figure) for column in costs},
        "within the bound": table["within"].map({True: "yes", False: "no"}),
    }
    return tabulate(shown, "keys", tablefmt="pipe", disable_numparse=True, colalign=["right"] * len(shown)).splitlines()


def draw(path: Path, table: pd.DataFrame, keys: list[str], bound: float) -> None:
    """Draw P(positive) against KL, a point for each trial. The same table gives the same bytes."""
    with picture(path, 1, 6.0, 4.0) as (ax,):
        for within, colour, marker, label in ((True, "#0072B2", "o", "within the bound"), (False, "#999999", "x", "beyond it")):
            points = table[table["within"] == within]
            ax.scatter(points["KL"], points["P(positive)"], color=colour, marker=marker, label=label)
        names = table[keys[0]].map(_short) if len(keys) == 1 else table["trial"].astype(str)
        for point, same in names.groupby([table["KL"], table["P(positive)"]]):
            ax.annotate(", ".join(same), point, xytext=(4, 4), textcoords="offset points")
        ax.axvline(bound, color="#D55E00", linestyle="--", linewidth=1, label=f"the bound, {bound:g} nats")
        labels = keys[0] if len(keys) == 1 else "the number of the trial"
        ax.set(
            title=f"P(positive) against KL, labelled with {labels}",
            xlabel="KL from the fine-tuned model (nats per response)",
            ylabel="mean P(positive) on validation prompts",
        )
        ax.legend()
