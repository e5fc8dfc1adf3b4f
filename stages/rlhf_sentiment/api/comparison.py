"""The models side by side: the figures of the report, or their answers to your own prompts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from ..data.prompts import at_least_one, texts
from ..engine.records import read_json
from ..evaluation.contestants import CONTESTANTS
from .config import RLHFConfig
from .repository import require_repository, require_run, warn_of_other_settings


class Comparison(NamedTuple):
    """The models side by side. A notebook shows the table.

    Attributes:
        table: for the report's prompts, a row for each model and a column for each figure. For your own prompts, a row for
            each answer.
        figures: for the report's prompts, the tree of metrics/evaluation.json. For your own prompts, `mean_positive` and
            `positive_ratio`, from 0 to 1, and the number of `samples` of each model. docs/evaluation.md defines the figures.

    Example:
        >>> table, figures = run_evaluation(RLHFConfig())
        >>> round(float(table.loc["rlhf", "mean_positive"]), 4) == figures["rlhf"]["mean_positive"]
        True
    """

    table: pd.DataFrame
    figures: dict[str, Any]

    def __repr__(self) -> str:
        return repr(self.table)

    def _repr_html_(self) -> str:
        return self.table.to_html(float_format=lambda figure: f"{figure:.3f}")


def run_evaluation(config: RLHFConfig, prompts: Sequence[str] | None = None, samples: int = 1) -> Comparison:
    """Return the report's figures, or the answer of each model to `prompts` with the judge's P(positive).

    The models are those of the last run. A warning names each setting that the last run had otherwise. No file is written.

    Args:
        config: the settings.
        prompts: texts to continue. None means the report's prompts, as the last run answered them.
        samples: answers of each model to each of `prompts`.

    Raises:
        StageError: there was no run, the last run did not finish, or a prompt is empty or too long.

    Example:
        >>> comparison = run_evaluation(RLHFConfig())
        >>> list(comparison.table.index)
        ['base', 'sft', 'rlhf']
        >>> answers = run_evaluation(RLHFConfig(), ["Describe a perfect day", "What makes you happy?"])
        >>> list(answers.table.columns)
        ['prompt', 'model', 'sample', 'positive', 'response']
        >>> answers.figures["rlhf"]["samples"]
        2
    """
    require_repository(config)
    require_run()
    warn_of_other_settings(config)
    if prompts is None:
        tree = read_json("metrics/evaluation.json", dict.fromkeys(CONTESTANTS, dict))
        rows = {name: {key: value for key, value in tree[name].items() if not isinstance(value, dict)} for name in CONTESTANTS}
        return Comparison(pd.DataFrame.from_dict(rows, orient="index"), tree)
    from ..evaluation.compare import compare  # here, because torch and transformers take seconds to import

    table = compare(config, texts(prompts, "prompts"), at_least_one(samples))
    figures = {
        str(name): {
            "mean_positive": float(positive.mean()),
            "positive_ratio": float((positive > 0.5).mean()),
            "samples": len(positive),
        }
        for name, positive in table.groupby("model", sort=False)["positive"]
    }
    return Comparison(table, figures)
