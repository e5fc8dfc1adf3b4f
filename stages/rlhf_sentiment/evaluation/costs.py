"""Measure the cost of positivity: variety, repetition, similarity to the base model, and KL from the reference."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import torch
from sacrebleu.metrics.bleu import BLEU
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..data.text import spaced
from ..engine.records import Row
from ..models.exchange import of_each_rank, summed
from ..sampling.rollout import exact_kl, score_tokens
from .samples import batches

_COMPARED = 100  # responses that self-BLEU compares with each other


def _grams(tokens: Sequence[int], n: int) -> list[tuple[int, ...]]:
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def distinct(responses: Sequence[Sequence[int]], n: int, tokens: int) -> float | None:
    """Return distinct n-grams over n-grams (Li et al. 2016, 1510.03055) in the first `tokens` tokens of the responses.

    Longer text repeats more, whatever model wrote it, so models are compared at equal numbers of tokens. No n-gram spans two
    responses. The value is None if the responses have fewer than `tokens` tokens, and 0 where there is no n-gram.
    """
    if sum(map(len, responses)) < tokens:
        return None
    grams: list[tuple[int, ...]] = []
    for response in responses:
        part = response[: max(tokens, 0)]
        tokens -= len(part)
        grams += _grams(part, n)
    return len(set(grams)) / len(grams) if grams else 0.0


def repetition(responses: Sequence[Sequence[int]], n: int = 4) -> float:
    """Return the share of a response's n-grams that repeat an earlier one, mean over responses (seq-rep-n of 1908.04319)."""
    shares = []
    for response in responses:
        grams = _grams(response, n)
        shares.append(1 - len(set(grams)) / len(grams) if grams else 0.0)
    return float(np.mean(shares))


def duplicated(responses: Sequence[str]) -> float:
    """Return the share of responses that equal an earlier one."""
    return 1 - len(set(responses)) / len(responses)


def self_bleu(responses: Sequence[str]) -> float:
    """Return the mean BLEU of each response against the others, from 0 to 1 (Texygen, 1802.01886).

    It grows with the number of responses, so it uses the first hundred of every model.
    """
    texts = [spaced(text) for text in responses[:_COMPARED]]
    bleu = BLEU(effective_order=True)  # short responses have no 4-gram
    scores = [bleu.sentence_score(text, texts[:i] + texts[i + 1 :]).score for i, text in enumerate(texts)]
    return float(np.mean(scores)) / 100


def costs(rows: list[Row], each: int, tokens: int) -> Row:
    """Return variety and length of a model's responses.

    Args:
        rows: the answers, `each` to a prompt.
        each: answers to each prompt. Self-BLEU reads the first of them.
        tokens: distinct n-grams are counted in the first `tokens` tokens. They are None if there are fewer.
    """
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


@torch.no_grad()
def perplexity(base: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[Row]) -> float:
    """Return the perplexity of the responses under the base model, over all their tokens."""
    nats, tokens = 0.0, 0
    for _, batch in batches(rows, tokenizer, base.device):
        log_probs = score_tokens(base, batch, 1.0).log_probs
        nats -= float(log_probs[batch.response_mask.bool()].double().sum())
        tokens += int(batch.response_mask.sum())
    return float(np.exp(summed(nats) / summed(tokens)))


def kl(
    model: PreTrainedModel,
    reference: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rollouts: list[Row],
    temperature: float,
) -> float:
    """Return KL(model || reference) in nats per response, estimated from rollouts of the model at `temperature`."""
    parts = batches(rollouts, tokenizer, model.device)
    own = [exact_kl(model, reference, part, temperature).cpu() for _, part in parts]
    return float(np.mean(np.concatenate([*chain.from_iterable(of_each_rank(own))])))
