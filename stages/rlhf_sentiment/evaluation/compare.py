"""What base, fine-tuned and RLHF model answer to prompts of your own, and how positive the judge finds it."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..engine.artifacts import require
from ..engine.progress import progress_bar
from ..engine.records import Row
from ..models.devices import make_deterministic, quiet, resolve_device
from ..models.loading import load_policy, load_tokenizer
from ..sampling.answers import answer
from ..settings.whole import Params
from .classifier import Judge
from .contestants import MODELS
from .judges import judged


def compare(params: Params, prompts: Sequence[str], samples: int) -> pd.DataFrame:
    """Every model's answers to each prompt, with the judge's P(positive).

    Returns:
        A row an answer: prompt, model, sample (its number among several), positive, response.

    Raises:
        StageError: a model or the judge is missing; a prompt is empty or too long.
    """
    for folder in (*MODELS.values(), "models/judge"):
        require(Path(folder))
    quiet()
    make_deterministic(params.seed)
    device, judge = resolve_device(params.device), Judge.load("models/judge")
    rows: list[Row] = []
    for name, folder in progress_bar(MODELS.items(), desc="answers", unit=" models", leave=False):
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
