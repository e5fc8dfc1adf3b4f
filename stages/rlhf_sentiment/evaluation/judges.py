"""Those who judge beside the classifier, and the exam that every judge sits.

A judge's opinion is P(positive) of a text, in [0, 1]. The lexicon's is its compound score, moved there; the reward model's
is a logistic function of its score, fitted on labelled texts that neither the reward model nor the exam has seen (Platt 1999).
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

from ..engine.artifacts import require
from ..engine.errors import StageError
from ..engine.messages import listed
from ..models.forward import reward_scores, room_of
from ..models.loading import load_classifier
from ..models.tokens import encode, encode_whole, ending
from ..sampling.rollout import pad_prompts
from ..settings.evaluate import LOCAL
from .classifier import Judge

Opinion = Callable[[Sequence[str]], np.ndarray]  # P(positive) of each text, in [0, 1]. [N] -> (N,)


def opinion_of(judge: str, device: torch.device) -> Opinion:
    """What `evaluate.judges` means by a name."""
    if judge == "classifier":
        return Judge.load("models/judge").positive
    if judge.startswith(LOCAL):
        require(Path(judge))
    return lexicon() if judge == "lexicon" else classifier_of(judge, device)


def lexicon() -> Opinion:
    """vaderSentiment's (Hutto and Gilbert 2014), which was trained on nothing of ours."""
    analyzer = SentimentIntensityAnalyzer()
    return lambda texts: np.array([(analyzer.polarity_scores(text)["compound"] + 1) / 2 for text in texts])


def judged(prompt: str, response: str, how: str) -> str:
    """What a judge reads of an answer: `evaluate.judged`."""
    return response if how == "response" else prompt + response


def text_scores(reward: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], ended: bool) -> np.ndarray:
    """The reward model's score of whole texts, as far as it has positions. [N] -> (N,)

    Args:
        ended: whether its ending follows each text, as it does where responses end by themselves.
    """
    end = ending(tokenizer) if ended else []
    room = int(min(room_of(reward), 1e9))
    rows = [[*encode(tokenizer, text), *end][:room] for text in texts]
    scores = np.zeros(len(rows))
    with torch.no_grad():
        for numbers in _batches([len(row) for row in rows]):
            ids, mask = (part.to(reward.device) for part in pad_prompts([rows[i] for i in numbers], tokenizer.pad_token_id))
            scores[numbers] = reward_scores(reward, ids, mask).cpu().numpy()
    return scores


def platt(scores: np.ndarray, labels: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """P(positive) as a logistic function of a score, fitted on labelled ones (Platt 1999). (N,), (N,) -> a function of (M,)"""
    mean, spread = scores.mean(), scores.std() or 1.0
    fitted = LogisticRegression(C=1e6).fit(((scores - mean) / spread)[:, None], labels)
    return lambda others: fitted.predict_proba(((others - mean) / spread)[:, None])[:, 1]


def classifier_of(judge: str, device: torch.device) -> Opinion:
    """The opinion of a text classifier: models/pretrained/NAME, or OWNER/NAME@REVISION on the hub.

    Raises:
        StageError: it cannot be loaded, or has not one label for positive and one for negative.
    """
    name, _, revision = judge.partition("@")
    model, tokenizer = load_classifier(name, device, revision or None)
    labels = {index: str(label).lower() for index, label in model.config.id2label.items()}
    sides = [[index for index, label in labels.items() if label.startswith(side)] for side in ("pos", "neg")]
    if [*labels.values()] == ["label_0", "label_1"]:  # unnamed: by custom 0 is negative, 1 positive
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
        return positive

    return opinion


def _batches(lengths: Sequence[int], size: int = 64) -> list[list[int]]:
    """Numbers of texts, those of a length together: little padding."""
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    return [order[start : start + size] for start in range(0, len(order), size)]


def agreement(opinions: dict[str, np.ndarray]) -> dict[str, float]:
    """Cohen's kappa (1960) of each pair of judges on the same texts, P > 0.5 against not: 1 is agreement, 0 is chance.

    Where both give all texts one label, they agree, and kappa is 1.
    """
    kappas = {}
    for (one, these), (other, those) in combinations(opinions.items(), 2):
        same = np.array_equal(these > 0.5, those > 0.5)
        kappas[f"{one}_{other}"] = 1.0 if same else float(cohen_kappa_score(these > 0.5, those > 0.5))
    return kappas
