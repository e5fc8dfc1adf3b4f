"""Base, fine-tuned and RLHF model side by side: the figures of the report, or what they answer to your own prompts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import pandas as pd

from ..data.prompts import at_least_one, texts
from ..engine.records import read_json
from ..evaluation.contestants import MODELS
from .config import RLHFConfig
from .repository import require_repository, require_run, warn_of_other_settings


class Comparison(NamedTuple):
    """Base, fine-tuned (sft) and RLHF model side by side; a notebook shows the table.

    Attributes:
        table: of the report's prompts, a row a model and a column a figure; of your own, a row an answer.
        figures: the tree of metrics/evaluation.json; of your own prompts, for each model `mean_positive` and
            `positive_ratio`, in [0, 1], and the number of `samples`. docs/evaluation.md defines each.

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
    """The report's figures, or each model's answers to `prompts` and the judge's P(positive) of them.

    Both are of the last run, with a warning where its settings were not these, and neither writes anything.

    Args:
        prompts: texts to continue; None: the report's test prompts, as the last run answered them.
        samples: answers of each model to each of `prompts`.

    Raises:
        StageError: there was no run, or it did not come to its end; a prompt is empty or too long.

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
        tree = read_json("metrics/evaluation.json", dict.fromkeys(MODELS, dict))
        rows = {name: {key: value for key, value in tree[name].items() if not isinstance(value, dict)} for name in MODELS}
        return Comparison(pd.DataFrame.from_dict(rows, orient="index"), tree)
    from ..evaluation.compare import compare  # torch and transformers take seconds to import, and only this needs them

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
