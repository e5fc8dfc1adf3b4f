"""The models side by side: the figures of the report, or their answers to your own prompts."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from ..data.prompts import Prompt, at_least_one, rows_of
from ..engine.errors import StageError
from ..engine.messages import one_line
from ..engine.records import read_json
from ..evaluation.contestants import COMPARISONS, CONTESTANTS
from ..evaluation.figures import metrics_of
from .config import RLHFConfig
from .repository import require_repository, require_run, warn_of_other_settings


class Comparison(NamedTuple):
    """The models side by side. A notebook shows the table.

    Attributes:
        table: for the report's prompts, a row for each model and a column for each figure. For your own prompts, a row for
            each answer.
        figures: for the report's prompts, the tree of reports/evaluation.json. In a clone without that file, the tree of
            metrics/evaluation.json, which has fewer figures. For your own prompts, `mean_positive` with its interval `ci_low`
            and `ci_high`, `positive_ratio`, and the numbers of `prompts` and `samples` of each model. docs/evaluation.md
            defines the figures.

    Example:
        >>> table, figures = run_evaluation(RLHFConfig())
        >>> round(float(table.loc["rlhf", "mean_positive"]), 4) == figures["rlhf"]["mean_positive"]
        True
    """

    table: pd.DataFrame
    figures: dict[str, Any]

    def __repr__(self) -> str:
        first, *means = self._tables()
        if not means:  # a row for each figure, so that none is left out
            return str(first.T.to_string(float_format="{:.3f}".format))
        answers = first.to_string(index=False, max_colwidth=28, max_rows=30, float_format="{:.2f}".format)
        return f"{answers}\n\n{means[0].to_string(float_format='{:.3f}'.format)}"

    def _repr_html_(self) -> str:
        return "\n".join(table.to_html(float_format=lambda figure: f"{figure:.3f}") for table in self._tables())

    def _tables(self) -> list[pd.DataFrame]:
        """Return the table, and for your own prompts the means with their intervals."""
        if "model" not in self.table:
            return [self.table]
        return [self.table, pd.DataFrame.from_dict(self.figures, orient="index")]


def run_evaluation(
    config: RLHFConfig,
    prompts: Sequence[Prompt] | None = None,
    samples: int = 1,
    *,
    custom_prompts: Sequence[Prompt] | None = None,
) -> Comparison:
    """Return the report's figures, or the answer of each model to `prompts` with the judge's P(positive).

    The models are those of the last run. A warning names each setting that the last run had otherwise. No file is written.

    The small default models know film reviews only. A prompt is unlike their texts if its perplexity under base is more than
    ten times the 99 % quantile of the test prompts. Its answers show nothing about the models.

    Args:
        config: the settings.
        prompts: texts to continue, or lists of messages ({role, content}). If the prepared prompts have messages, a text
            becomes one message of the user. None means the report's prompts, as the last run answered them.
        samples: answers of each model to each of `prompts`.
        custom_prompts: an older name of `prompts`.

    Raises:
        StageError: there was no run, the last run did not finish, or a prompt is empty or too long.

    Warns:
        UserWarning: prompts are unlike the training texts, or fewer than 30, which are too few for a claim.

    Example:
        >>> comparison = run_evaluation(RLHFConfig())
        >>> list(comparison.table.index)
        ['base', 'sft', 'rlhf']
        >>> answers = run_evaluation(RLHFConfig(), ["The film was", "The main character was"])
        >>> list(answers.table.columns)
        ['prompt', 'model', 'sample', 'positive', 'response']
        >>> answers.figures["rlhf"]["samples"]
        2
    """
    require_repository(config)
    require_run()
    warn_of_other_settings(config)
    if custom_prompts is not None:
        if prompts is not None:
            raise StageError("custom_prompts is an older name of prompts; give one of them")
        prompts = custom_prompts
    if prompts is None:
        tree = _figures_of_report()
        rows = {name: {key: value for key, value in tree[name].items() if not isinstance(value, dict)} for name in CONTESTANTS}
        return Comparison(pd.DataFrame.from_dict(rows, orient="index"), tree)
    from ..evaluation.compare import compare  # here, because torch and transformers take seconds to import

    table, means, cautions = compare(config, rows_of(prompts, "prompts"), at_least_one(samples))
    for caution in cautions:
        warnings.warn(one_line(caution), stacklevel=2)
    return Comparison(table, means)


def _figures_of_report() -> dict[str, Any]:
    """Return the tree of reports/evaluation.json, or of metrics/evaluation.json where the report is absent or of another run.

    Git has the metrics, and DVC's cache has the report. After `git checkout`, the report can be that of another commit.
    """
    models: dict[str, type] = dict.fromkeys(CONTESTANTS, dict)
    metrics = read_json("metrics/evaluation.json", models)
    if not Path("reports/evaluation.json").is_file():
        return metrics
    report = read_json("reports/evaluation.json", dict.fromkeys([*CONTESTANTS, *COMPARISONS], dict))
    return report if metrics_of(report) == metrics else metrics
