"""The figures of reports/evaluation.json: each contestant's own, and those that compare contestants."""

from typing import Any

import numpy as np
import torch

from ..data import grammar
from ..engine.progress import progress_bar
from ..engine.records import Row
from ..models.loading import load_policy, load_tokenizer
from .contestants import CONTESTANTS, REFERENCE, TREATMENT
from .costs import costs, kl, perplexity
from .panel import Opinions
from .samples import Samples


def figures_of_contestants(
    samples: Samples,
    opinions: dict[str, Opinions],
    temperature: float,
    distinct_tokens: int,
    synthetic: bool,
    device: torch.device,
) -> dict[str, Row]:
    """Return the figures of each contestant. They depend on no answer of another contestant.

    Args:
        samples: the answers, and the rollouts.
        opinions: what the judges say of the answers.
        temperature: of the rollouts.
        distinct_tokens: the number of tokens in which distinct n-grams are counted.
        synthetic: whether the corpus comes from the grammar, which then gives its opinion too.
        device: runs the models.
    """
    tokenizer, base = load_tokenizer("models/base"), load_policy("models/base", device)
    reference = load_policy(CONTESTANTS[REFERENCE].folder, device)
    found: dict[str, Row] = {}
    for name, rows in progress_bar(samples.answers.items(), desc="evaluate: costs", unit=" models", leave=False):
        found[name] = summary(opinions[name].positive) | {"reward": opinions[name].scores.mean()}
        found[name] |= {"perplexity": perplexity(base, tokenizer, rows)} | costs(rows, samples.each, distinct_tokens)
        if synthetic:
            found[name] |= oracle(rows)
        found[name]["kl_to_sft"] = 0.0
        if name in samples.rollouts:
            model = load_policy(CONTESTANTS[name].folder, device)
            found[name]["kl_to_sft"] = kl(model, reference, tokenizer, samples.rollouts[name], temperature)
    return found


def too_few_tokens(samples: Samples, distinct_tokens: int) -> list[str]:
    """Return a line that names the contestants whose answers have fewer than `distinct_tokens` tokens, if there are any."""
    counts = {name: sum(len(row["tokens"]) for row in rows) for name, rows in samples.answers.items()}
    few = [f"{name} {count}" for name, count in counts.items() if count < distinct_tokens]
    if not few:
        return []
    absent = "so their distinct n-grams are not counted; lower it, or raise evaluate.num_samples"
    return [f"these answers have fewer tokens than evaluate.distinct_tokens {distinct_tokens}, {absent}: {', '.join(few)}"]


def summary(positive: dict[str, np.ndarray]) -> Row:
    """Return what the judges say of a contestant's answers: three figures of the classifier, one of each other judge."""
    classifier = positive["classifier"]
    others = {f"{name}_positive": (opinion > 0.5).mean() for name, opinion in positive.items() if name != "classifier"}
    return {
        "mean_positive": classifier.mean(),
        "std_positive": classifier.std(ddof=1),
        "positive_ratio": (classifier > 0.5).mean(),
        **others,
    }


def oracle(rows: list[Row]) -> Row:
    """Return the opinion of the grammar that wrote the corpus: the share of answers that parse, and their positive share."""
    polarities = [grammar.polarity_of(row["prompt"] + row["response"]) for row in rows]
    parsed = [polarity for polarity in polarities if polarity is not None]
    positive = parsed.count(grammar.POSITIVE) / max(len(parsed), 1)
    return {"grammar_parses": len(parsed) / len(rows), "grammar_positive": positive}


def hacking_gap(opinions: dict[str, Opinions]) -> float:
    """Return how much more the reward model's score rose than the judge's opinion, in standard deviations.

    Both rises are from the reference to the contestant whose effect the report states.
    """
    before, after = opinions[REFERENCE], opinions[TREATMENT]
    return gain(after.scores, before.scores) - gain(after.positive["classifier"], before.positive["classifier"])


def gain(after: np.ndarray, before: np.ndarray) -> float:
    """Return the rise of the mean in standard deviations of `before`, or 0 where `before` is constant."""
    spread = before.std(ddof=1)
    return float((after.mean() - before.mean()) / spread) if spread > 0 else 0.0


def plain(tree: Any) -> Any:
    """Return `tree` with numpy's numbers as Python's."""
    if isinstance(tree, dict):
        return {key: plain(value) for key, value in tree.items()}
    return tree.item() if isinstance(tree, np.generic) else tree
