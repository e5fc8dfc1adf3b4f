"""All judges except the classifier.

A judge's opinion is P(positive) of a text, from 0 to 1. The lexicon's is its compound score, mapped to this range. The reward
model's is a logistic function of its score (Platt 1999). The function is fitted on labelled texts that neither the reward model
nor the exam has seen.
"""

from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from ..engine.errors import StageError
from ..engine.inputs import require
from ..engine.messages import listed
from ..models.exchange import own_share, summed
from ..models.forward import reward_scores, room_of
from ..models.loading import load_classifier
from ..models.tokens import encode, encode_whole, ending
from ..sampling.rollout import pad_prompts
from ..settings.evaluate import LOCAL
from .classifier import Judge

Opinion = Callable[[Sequence[str]], np.ndarray]  # P(positive) of each text, from 0 to 1. [N] -> (N,)


def opinion_of(judge: str, device: torch.device) -> Opinion:
    """Return the judge that a name in `evaluate.judges` stands for. `reward` is not one of these."""
    if judge == "classifier":
        return Judge.load("models/judge").positive
    if judge.startswith(LOCAL):
        require(Path(judge))
    return lexicon() if judge == "lexicon" else classifier_of(judge, device)


def lexicon() -> Opinion:
    """Return vaderSentiment's opinion (Hutto and Gilbert 2014), which uses no data of this project."""
    analyzer = SentimentIntensityAnalyzer()
    return lambda texts: np.array([(analyzer.polarity_scores(text)["compound"] + 1) / 2 for text in texts])


def judged(prompt: str, response: str, how: str) -> str:
    """Return the text of an answer that a judge reads, as `evaluate.judged` says."""
    return response if how == "response" else prompt + response


def text_scores(reward: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], ended: bool) -> np.ndarray:
    """Return the reward model's score of each text. A text is truncated to the model's positions. [N] -> (N,).

    Args:
        reward, tokenizer: the reward model.
        texts: without special tokens.
        ended: whether each text gets an EOS.
    """
    end = ending(tokenizer) if ended else []
    room = int(min(room_of(reward), 1e9))
    rows = [[*encode(tokenizer, text), *end][:room] for text in texts]
    scores = np.zeros(len(rows))
    with torch.no_grad():
        for numbers in _batches([len(row) for row in rows]):
            ids, mask = (part.to(reward.device) for part in pad_prompts([rows[i] for i in numbers], tokenizer.pad_token_id))
            scores[numbers] = reward_scores(reward, ids, mask).cpu().numpy()
    return summed(scores)


def platt(scores: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Fit P(positive) as a logistic function of a score (Platt 1999). (N,), (N,) -> a function of (M,)."""
    mean, spread = scores.mean(), scores.std() or 1.0
    fitted = LogisticRegression(C=1e6).fit(((scores - mean) / spread)[:, None], labels)
    return lambda others: fitted.predict_proba(((others - mean) / spread)[:, None])[:, 1]


def classifier_of(judge: str, device: torch.device) -> Opinion:
    """Load a text classifier as a judge.

    Args:
        judge: models/pretrained/NAME, or OWNER/NAME@REVISION on the hub.
        device: computes its opinion.

    Raises:
        StageError: it cannot be loaded, or it does not have one positive and one negative label.
    """
    name, _, revision = judge.partition("@")
    model, tokenizer = load_classifier(name, device, revision or None)
    labels = {index: str(label).lower() for index, label in model.config.id2label.items()}
    sides = [[index for index, label in labels.items() if label.startswith(side)] for side in ("pos", "neg")]
    if [*labels.values()] == ["label_0", "label_1"]:  # unnamed: by convention 0 is negative, 1 positive
        sides = [[1], [0]]
    if any(len(side) != 1 for side in sides):
        raise StageError(
            f"{name} has the labels {listed(labels.values())}; a judge needs one that begins with pos, and one with neg"
        )
    both = [side[0] for side in sides]
    if tokenizer.pad_token is None:  # a GPT-2 finds the last token by the pad that follows
        tokenizer.pad_token = tokenizer.eos_token
        model.config.pad_token_id = tokenizer.pad_token_id
    tokenizer.padding_side = "right"  # its positions count from the left
    embeddings: Any = getattr(model.base_model, "embeddings", None)
    first = getattr(getattr(embeddings, "position_embeddings", None), "padding_idx", None)
    skipped = 0 if first is None else first + 1  # RoBERTa counts positions from there
    room = int(min(room_of(model) - skipped, tokenizer.model_max_length, 1e9))

    @torch.no_grad()
    def opinion(texts: Sequence[str]) -> np.ndarray:
        positive = np.zeros(len(texts))
        for numbers in _batches([len(text) for text in texts]):
            rows = [encode_whole(tokenizer, texts[i], room) for i in numbers]
            inputs = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
            logits = model(**inputs.to(device)).logits[:, both].float()
            positive[numbers] = logits.softmax(dim=-1)[:, 0].cpu().numpy()
        return summed(positive)

    return opinion


def _batches(lengths: Sequence[int], size: int = 64) -> Sequence[list[int]]:
    """Group the indices of texts by length, so that batches have little padding. Return the groups of this rank."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    return own_share([order[start : start + size] for start in range(0, len(order), size)])


def agreement(opinions: dict[str, np.ndarray]) -> dict[str, float]:
    """Return Cohen's kappa (1960) of each pair of judges on the same texts, from P > 0.5: 1 is agreement, 0 is chance.

    Where both judges give every text the same one label, kappa is 1.
    """
    kappas = {}
    for (one, these), (other, those) in combinations(opinions.items(), 2):
        same = np.array_equal(these > 0.5, those > 0.5)
        kappas[f"{one}_{other}"] = 1.0 if same else float(cohen_kappa_score(these > 0.5, those > 0.5))
    return kappas
