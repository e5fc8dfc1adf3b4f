"""What positivity cost: variety, repetition, likeness to the models before. Guards warn where it was too much."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from sacrebleu.metrics.bleu import BLEU

from ..data.text import spaced
from ..engine.records import Row
from ..settings.evaluate import Guards

_COMPARED = 100  # responses that self-BLEU compares with each other


def _grams(tokens: Sequence[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def distinct(responses: Sequence[Sequence[int]], n: int, tokens: int) -> float:
    """Distinct n-grams over n-grams (Li et al. 2016, 1510.03055), in the first `tokens` tokens of the responses, in order.

    Longer text repeats more, whoever wrote it: models are compared at equal numbers of tokens. No n-gram spans two
    responses. 0 where there is no n-gram.
    """
    grams: list[tuple[int, ...]] = []
    for response in responses:
        part = response[: max(tokens, 0)]
        tokens -= len(part)
        grams += _grams(part, n)
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(responses: Sequence[Sequence[int]], n: int = 4) -> float:
    """The share of a response's n-grams that it has said before, mean over responses (seq-rep-n of 1908.04319)."""
    shares = []
    for response in responses:
        grams = _grams(response, n)
        shares.append(1 - len(set(grams)) / len(grams) if grams else 0.0)
    return float(np.mean(shares))


def duplicated(responses: Sequence[str]) -> float:
    """The share of responses that were given already, to the letter."""
    return 1 - len(set(responses)) / len(responses)


def self_bleu(responses: Sequence[str]) -> float:
    """BLEU of each response against the others, mean, 0 to 1: how alike they are (Texygen, 1802.01886).

    Of the first hundred responses: it grows with their number, so that models are compared at the same.
    """
    texts = [spaced(text) for text in responses[:_COMPARED]]
    bleu = BLEU(effective_order=True)  # short responses have no 4-gram
    scores = [bleu.sentence_score(text, texts[:i] + texts[i + 1 :]).score for i, text in enumerate(texts)]
    return float(np.mean(scores)) / 100


def costs(rows: list[Row], each: int, tokens: int) -> Row:
    """Variety and length of a model's responses, `each` of them to a prompt; distinct n-grams are of the first `tokens`."""
    responses = [row["tokens"] for row in rows]
    return {
        **{f"distinct_{n}": distinct(responses, n, tokens) for n in (1, 2, 3)},
        "self_bleu": self_bleu([row["response"] for row in rows[::each]]),
        "repetition": repetition(responses),
        "duplicated": duplicated([row["response"] for row in rows]),
        "response_tokens": np.mean([len(response) for response in responses]),
        "cut_off": 1 - np.mean([row["finished"] for row in rows]),
        "samples": len(rows),
    }


class Guard(NamedTuple):
    """A limit: of which figure of a model, whether the most or the least, and in what it is told."""

    key: str
    most: bool
    relative: str  # "times": the figure over sft's; "more": the figure less sft's; "": the figure


GUARDS = {
    "max_perplexity": Guard("perplexity", True, "times"),
    "max_kl": Guard("kl_to_sft", True, ""),
    "min_distinct_2": Guard("distinct_2", False, "times"),
    "max_self_bleu": Guard("self_bleu", True, "more"),
    "max_repetition": Guard("repetition", True, "more"),
    "max_duplicated": Guard("duplicated", True, "more"),
    "max_cut_off": Guard("cut_off", True, "more"),
    "min_length": Guard("response_tokens", False, "times"),
    "max_length": Guard("response_tokens", True, "times"),
}


def crossed(models: dict[str, Row], guards: Guards) -> list[str]:
    """A line for each guard that a model crosses: model, figure and limit.

    Args:
        models: each model's figures; sft's are the measure.
    """
    sft, lines = models["sft"], []
    for name, figures in models.items():
        for setting, (key, most, relative) in GUARDS.items():
            limit = getattr(guards, setting)
            figure, told = figures[key], ""
            if relative == "times":
                figure, told = figure / max(sft[key], 1e-9), " times sft's"
            elif relative == "more":
                figure, told = figure - sft[key], " more than sft's"
            figure = round(figure, 9)  # 1.0 - 0.7 is more than 0.3
            if limit is not None and (figure > limit if most else figure < limit):
                side = "above" if most else "below"
                lines.append(f"{name}: {key} is {figure:.3g}{told}, {side} evaluate.guards.{setting} {limit:g}")
    return lines
