"""All judges of a run: their opinions of the contestants' answers, and how good the judges are."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..engine.progress import progress_bar
from ..engine.records import Row
from ..models.exchange import summed
from ..models.forward import reward_scores
from ..models.loading import load_reward_model, load_tokenizer
from ..settings.evaluate import EvaluateSettings, short_name
from .classifier import examine_both
from .contestants import REFERENCE
from .exam import Exam, agreement_with_annotators
from .judges import Opinion, agreement, judged, opinion_of, platt, text_scores
from .samples import Samples, batches


class Opinions(NamedTuple):
    """The opinions of the judges on a contestant's answers.

    Attributes:
        positive: P(positive) of each answer. judge -> (N x S,)
        scores: the reward model's score of each answer, whether or not it is a judge. (N x S,)
    """

    positive: dict[str, np.ndarray]
    scores: np.ndarray


class Judged(NamedTuple):
    """What the judges say of the answers of all contestants, and of the exam's texts.

    Attributes:
        answers: the opinions of the answers. contestant -> opinions
        positive: the classifier's P(positive) of the answers, a row for each prompt. contestant -> (N, S)
        exam: P(positive) of the exam's texts. judge -> "whole" or "cut" -> (M,)
        classifier: the classifier's opinion of other texts.
    """

    answers: dict[str, Opinions]
    positive: dict[str, np.ndarray]
    exam: dict[str, dict[str, np.ndarray]]
    classifier: Opinion


def judge(settings: EvaluateSettings, exam: Exam, samples: Samples, device: torch.device) -> Judged:
    """Ask all judges that `evaluate.judges` names.

    Args:
        settings: the names of the judges, and the part of an answer that they read.
        exam: holds the texts that measure the judges, and those that set the scale of the reward model's scores.
        samples: the answers of the contestants.
        device: computes the opinions.

    Raises:
        StageError: a judge cannot be loaded.
    """
    panel = _Panel(settings, exam, samples, device)
    each = progress_bar(samples.answers.items(), desc="evaluate: judges", unit=" models", leave=False)
    answers = {name: panel.on_answers(rows) for name, rows in each}
    positive = {name: one.positive["classifier"].reshape(len(samples.prompts), -1) for name, one in answers.items()}
    examined = {name: {way: opinion(texts) for way, texts in exam.texts.items()} for name, opinion in panel.opinions.items()}
    return Judged(answers, positive, examined, panel.opinions["classifier"])


class _Panel:
    """The judges.

    Attributes:
        opinions: each judge's opinion of texts. The reward model comes last, if it is a judge. judge -> opinion
    """

    def __init__(self, settings: EvaluateSettings, exam: Exam, samples: Samples, device: torch.device) -> None:
        """Load the judges, and fit the scale of the reward model's scores. The arguments are those of `judge`.

        If most answers of the reference end with EOS, the texts of the exam get an EOS too.
        """
        self._how = settings.judged
        self._reward, self._tokenizer = load_reward_model("models/reward", device), load_tokenizer("models/base")
        self._ended = bool(np.mean([row["finished"] for row in samples.answers[REFERENCE]]) > 0.5)
        self._scale = platt(self._text_scores(exam.scale_texts), exam.scale_labels)
        self._others = {short_name(name): opinion_of(name, device) for name in settings.judges if name != "reward"}
        self._reward_judges = "reward" in settings.judges
        own: dict[str, Opinion] = {"reward": lambda texts: self._scale(self._text_scores(texts))}
        self.opinions = self._others | (own if self._reward_judges else {})

    def on_answers(self, rows: list[Row]) -> Opinions:
        """Return the opinions of the answers of one contestant."""
        read = [judged(row["prompt"], row["response"], self._how) for row in rows]
        positive = {judge: opinion(read) for judge, opinion in self._others.items()}
        scores = answer_scores(self._reward, self._tokenizer, rows)
        if self._reward_judges:  # from the tokens that were sampled: their text could have other tokens
            positive["reward"] = self._scale(scores)
        return Opinions(positive, scores)

    def _text_scores(self, texts: Sequence[str]) -> np.ndarray:
        return text_scores(self._reward, self._tokenizer, texts, self._ended)


@torch.no_grad()
def answer_scores(reward: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[Row]) -> np.ndarray:
    """Return the reward model's score of each answer, of the tokens that were sampled. [M] -> (M,)."""
    scores = np.zeros(len(rows), dtype=np.float32)
    for places, part in batches(rows, tokenizer, reward.device):
        scores[places] = reward_scores(reward, part.sequences, part.attention_mask).cpu().numpy()
    return summed(scores)


def figures_of_judges(judged: Judged, labels: np.ndarray, confidence: float) -> Row:
    """Return the figures of the judges themselves.

    Args:
        judged: what the judges say.
        labels: of the exam's texts. (M,)
        confidence: the level of the interval.

    Returns:
        judges: accuracy and calibration error of each judge on the exam's texts, whole and cut.
        kappa: how far the judges agree on the answers of all contestants.
        annotators: how far the classifier agrees with the annotators.
    """
    pooled = {name: np.concatenate([one.positive[name] for one in judged.answers.values()]) for name in judged.exam}
    return {
        "judges": {name: examine_both(ways["whole"], ways["cut"], labels) for name, ways in judged.exam.items()},
        "kappa": agreement(pooled),
        "annotators": agreement_with_annotators(judged.classifier, confidence),
    }
