"""The answers of every contestant to your own prompts, how positive the judge finds them, and whether they show anything."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.prompts import as_prepared, each_once
from ..engine.inputs import require
from ..engine.messages import cut, shown
from ..engine.progress import progress_bar
from ..engine.records import Row, read_rows
from ..models.devices import quiet, set_up
from ..models.forward import room_of
from ..models.loading import load_policy, load_tokenizer
from ..models.tokens import encode_prompt, habits
from ..sampling.answers import answer
from ..sampling.rollout import batch_of, score_tokens
from ..settings.evaluate import EvaluateSettings
from ..settings.whole import Params
from .classifier import Judge
from .contestants import CONTESTANTS
from .judges import judged
from .statistics import interval

FEWEST = 30  # prompts. The bootstrap interval of a smaller sample is too narrow
FAR, QUANTILE = 10.0, 0.99  # ten times the perplexity is 2.3 nats more for each token
_PROMPTS = "data/prepared/prompts.jsonl"
_NAMED = 3  # prompts that a caution quotes


class Compared(NamedTuple):
    """What the contestants answered.

    Attributes:
        table: a row for each answer, with prompt, model, sample (from 0), positive (the judge's P(positive)) and response.
        means: for each model `mean_positive` and its interval `ci_low` and `ci_high` (None with one prompt), `positive_ratio`,
            and the numbers of `prompts` and `samples` (answers).
        cautions: sentences on why the answers may show nothing, from `unlike_test_prompts` and `too_few`.
    """

    table: pd.DataFrame
    means: dict[str, Row]
    cautions: list[str]


def compare(params: Params, prompts: Sequence[Row], samples: int) -> Compared:
    """Let every contestant answer each prompt, and let the judge read the answers.

    Args:
        params: all settings.
        prompts: rows with `prompt`, and `messages` or not (`as_prepared`). A repeated prompt is answered once.
        samples: answers to each prompt.

    Raises:
        StageError: a model, the judge or the test prompts are missing, or a prompt is empty or too long.
    """
    for path in (*(one.folder for one in CONTESTANTS.values()), "models/judge", _PROMPTS):
        require(Path(path))
    quiet()
    device, judge = set_up(params, "compare"), Judge.load("models/judge")
    prepared = read_rows(_PROMPTS, {"prompt": str, "split": str})
    asked, test = as_prepared(each_once(prompts), prepared), [row for row in prepared if row["split"] == "test"]
    rows, cautions = list[Row](), list[str]()
    for contestant in progress_bar(CONTESTANTS.values(), desc="answers", unit=" models", leave=False):
        model, tokenizer = load_policy(contestant.folder, device), load_tokenizer(contestant.folder)
        written = answer(model, tokenizer, asked, params.seed, **params.generation.model_dump(), samples=samples)
        positive = judge.positive([judged(one.prompt, one.response, params.evaluate.judged) for one in written])
        rows += [
            {"prompt": one.prompt, "model": contestant.name, "sample": one.sample, "positive": score, "response": one.response}
            for one, score in zip(written, positive, strict=True)
        ]
        if contestant.name == "base":
            found = (prompt_perplexities(model, tokenizer, those) for those in (asked, test))
            cautions += unlike_test_prompts([row["prompt"] for row in asked], *found)
    table = pd.DataFrame(rows)
    return Compared(table, means_of(table, params.evaluate, params.seed), cautions + too_few(len(asked)))


def means_of(table: pd.DataFrame, settings: EvaluateSettings, seed: int) -> dict[str, Row]:
    """Return `Compared.means`. The interval is BCa over prompts, as in the report, each with the mean of its answers."""
    means: dict[str, Row] = {}
    for name, rows in table.groupby("model", sort=False):
        by_prompt = rows.groupby("prompt", sort=False)["positive"].mean().to_numpy()
        low, high = interval(by_prompt, settings.confidence, settings.resamples, seed) if len(by_prompt) > 1 else (None, None)
        means[str(name)] = {
            "mean_positive": float(rows["positive"].mean()),
            "ci_low": low,
            "ci_high": high,
            "positive_ratio": float((rows["positive"] > 0.5).mean()),
            "prompts": len(by_prompt),
            "samples": len(rows),
        }
    return means


def too_few(prompts: int) -> list[str]:
    """Return a sentence for fewer than 30 prompts, which are too few for a claim. One prompt has no interval at all."""
    if prompts >= FEWEST:
        return []
    what = "1 prompt is too few for a claim, and has no interval"
    if prompts > 1:
        what = f"{prompts} prompts are too few for a claim, and their intervals are too narrow"
    return [f"{what}; use at least {FEWEST}"]


def unlike_test_prompts(prompts: Sequence[str], own: np.ndarray, test: np.ndarray) -> list[str]:
    """Return a sentence that names the prompts that are far from what the models were trained on.

    A prompt is far if its perplexity under base is more than ten times the 99 % quantile of the test prompts, which come from
    the same source as the training texts. Answers to such a prompt show nothing about the models.

    Args:
        prompts: the prompts. [N]
        own: their perplexities, NaN where there is none. (N,)
        test: the perplexities of the test prompts. (M,)
    """
    test = test[~np.isnan(test)]
    if not len(test):
        return []
    usual = float(np.quantile(test, QUANTILE, method="higher"))
    far = sorted((-value, prompt) for value, prompt in zip(own.tolist(), prompts, strict=True) if value > FAR * usual)
    if not far:
        return []
    named = ", ".join(f"{shown(cut(prompt, 40))} ({-value:,.0f})" for value, prompt in far[:_NAMED])
    more = f" and {len(far) - _NAMED} more" if len(far) > _NAMED else ""
    are = "is" if len(far) == 1 else "are"
    return [
        f"{len(far)} of {len(prompts)} prompts {are} unlike the texts that the models were trained on, so their answers show "
        f"nothing; perplexity under base: {named}{more}; test prompts: {usual:,.1f} (99 % quantile)"
    ]


@torch.no_grad()
def prompt_perplexities(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Row]) -> np.ndarray:
    """Return the perplexity of each prompt under the base model, over all tokens but the first: [N] -> (N,).

    It is NaN for a prompt of one token, and for one that is longer than the model's positions.
    """
    encoded = [encode_prompt(tokenizer, row, f"prompt {number}") for number, row in enumerate(prompts, start=1)]
    first = len(habits(tokenizer).prefix) + 1
    found = np.full(len(prompts), np.nan)
    fitting = [row for row, ids in enumerate(encoded) if first < len(ids) <= room_of(base)]
    fitting.sort(key=lambda row: len(encoded[row]))  # little padding
    for start in range(0, len(fitting), 64):
        part = fitting[start : start + 64]
        ids: Any = [encoded[row] for row in part]
        batch = batch_of([one[:first] for one in ids], [one[first:] for one in ids], tokenizer.pad_token_id, base.device)
        log_probs, mask = score_tokens(base, batch, 1.0).log_probs.double(), batch.response_mask
        found[part] = ((-log_probs * mask).sum(dim=1) / mask.sum(dim=1)).exp().cpu().numpy()
    return found
