"""The answers of every contestant to your own prompts, and how positive the judge finds them."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ..engine.inputs import require
from ..engine.progress import progress_bar
from ..engine.records import Row
from ..models.devices import make_deterministic, quiet, resolve_device
from ..models.loading import load_policy, load_tokenizer
from ..sampling.answers import answer
from ..settings.whole import Params
from .classifier import Judge
from .contestants import CONTESTANTS
from .judges import judged


def compare(params: Params, prompts: Sequence[str], samples: int) -> pd.DataFrame:
    """Let every contestant answer each prompt, and let the judge read the answers.

    Args:
        params: all settings.
        prompts: the prompts. A repeated prompt is answered once.
        samples: answers to each prompt.

    Returns:
        A row for each answer, with prompt, model, sample (from 0), positive (the judge's P(positive)) and response.

    Raises:
        StageError: a model or the judge is missing, or a prompt is empty or too long.
    """
    for folder in (*(one.folder for one in CONTESTANTS.values()), "models/judge"):
        require(Path(folder))
    quiet()
    make_deterministic(params.seed)
    device, judge = resolve_device(params.device), Judge.load("models/judge")
    rows: list[Row] = []
    for contestant in progress_bar(CONTESTANTS.values(), desc="answers", unit=" models", leave=False):
        model, tokenizer = load_policy(contestant.folder, device), load_tokenizer(contestant.folder)
        written = answer(
            model, tokenizer, list(dict.fromkeys(prompts)), params.seed, **params.generation.model_dump(), samples=samples
        )
        positive = judge.positive([judged(one.prompt, one.response, params.evaluate.judged) for one in written])
        rows += [
            {"prompt": one.prompt, "model": contestant.name, "sample": one.sample, "positive": score, "response": one.response}
            for one, score in zip(written, positive, strict=True)
        ]
    return pd.DataFrame(rows)
