"""Base, fine-tuned and RLHF model side by side: the figures of the report, or what they answer to your own prompts."""

import warnings
from collections.abc import Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import yaml

from .pipeline import RLHFConfig, differences, require_repository
from .progress import progress_bar
from .prompts import at_least_one, texts
from .records import Row, read_json
from .run import StageError, require
from .settings.whole import Params

FOLDERS = {"base": "models/base", "sft": "models/sft", "rlhf": "models/ppo"}


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
    for difference in require_run(config):
        warnings.warn(f"the last run had {difference}; run_complete_pipeline makes one with these settings", stacklevel=2)
    if prompts is None:
        tree = read_json("metrics/evaluation.json", dict.fromkeys(FOLDERS, dict))
        rows = {name: {key: value for key, value in tree[name].items() if not isinstance(value, dict)} for name in FOLDERS}
        return Comparison(pd.DataFrame.from_dict(rows, orient="index"), tree)
    table = answers(config, texts(prompts, "prompts"), at_least_one(samples))
    figures = {
        str(name): {
            "mean_positive": float(positive.mean()),
            "positive_ratio": float((positive > 0.5).mean()),
            "samples": len(positive),
        }
        for name, positive in table.groupby("model", sort=False)["positive"]
    }
    return Comparison(table, figures)


def require_run(config: RLHFConfig) -> list[str]:
    """Refuse to speak of a run that is not there.

    Returns:
        What was different from `config`, such as "ppo.steps 30, not 50".

    Raises:
        StageError: dvc.lock records no finished run.
    """
    for path in ("dvc.lock", "metrics/evaluation.json"):
        require(Path(path))
    stages = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))["stages"]
    written = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", [])}
    read = [dep for stage in stages.values() for dep in stage["deps"]]
    if "evaluate" not in stages or any(dep["md5"] != written.get(dep["path"], dep["md5"]) for dep in read):
        raise StageError("the last run did not come to its end; call run_complete_pipeline")
    tree = config.model_dump(mode="json")
    recorded = {
        key: value
        for name, stage in stages.items()
        if name != "check"  # which also reads what changes no result
        for key, value in stage.get("params", {}).get("params.yaml", {}).items()
    }
    now = {key: reduce(getitem, key.split("."), tree) for key in recorded}
    return [f"{key} {old!r}, not {new!r}" for key, (old, new) in differences(recorded, now).items()]


def answers(params: Params, prompts: Sequence[str], samples: int) -> pd.DataFrame:
    """Every model's answers to each prompt, with the judge's P(positive).

    Returns:
        A row an answer: prompt, model, sample (its number among several), positive, response.

    Raises:
        StageError: a model or the judge is missing; a prompt is empty or too long.
    """
    # torch and transformers take seconds to import, and only this needs them.
    from .answers import answer
    from .judge import Judge
    from .judges import judged
    from .models import load_policy, load_tokenizer, make_deterministic, quiet, resolve_device

    for folder in (*FOLDERS.values(), "models/judge"):
        require(Path(folder))
    quiet()
    make_deterministic(params.seed)
    device, judge = resolve_device(params.device), Judge.load("models/judge")
    rows: list[Row] = []
    for name, folder in progress_bar(FOLDERS.items(), desc="answers", unit=" models", leave=False):
        model, tokenizer = load_policy(folder, device), load_tokenizer(folder)
        written = answer(
            model, tokenizer, list(dict.fromkeys(prompts)), params.seed, **params.generation.model_dump(), samples=samples
        )
        positive = judge.positive([judged(one.prompt, one.response, params.evaluate.judged) for one in written])
        rows += [
            {"prompt": one.prompt, "model": name, "sample": one.sample, "positive": score, "response": one.response}
            for one, score in zip(written, positive, strict=True)
        ]
    return pd.DataFrame(rows)
