"""The judge: TF-IDF of word n-grams and logistic regression, a model of another kind than the reward model.

N-grams make "not dull" a feature of its own. A judge is stored as JSON and safetensors, so that loading it runs no code.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import regex
from safetensors.numpy import load_file, save_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from ..data.text import TERM, spaced
from ..engine.errors import StageError, first_line
from ..engine.messages import mend_of
from ..engine.outputs import writing

_BINS = 10  # of P(positive), in calibration
# Decimals of a weight. The last bits of the solver's weights depend on the processor and on the C library. The differences are
# about 1e-13, so that hardly any weight is rounded to another number.
_DECIMALS = 6
_TERM = regex.compile(rf"{TERM}(?:['’]{TERM})?")  # "n't" is one word
_NEGATION = re.compile(r"\b(not|never|no|nobody|nothing|neither|nor|without|hardly|\w+n['’]t)\b", re.IGNORECASE)


def is_negated(text: str) -> bool:
    """Return whether `text` contains an English word of negation."""
    return _NEGATION.search(text) is not None


class Judge:
    """P(positive) of a text.

    Example:
        >>> judge = Judge.load("models/judge")
        >>> judge.positive(["not dull at all", "dull"]).shape
        (2,)
    """

    def __init__(self, vectorizer: TfidfVectorizer, classifier: LogisticRegression) -> None:
        self.vectorizer, self.classifier = vectorizer, classifier

    @classmethod
    def train(cls, texts: Sequence[str], labels: np.ndarray, ngrams: int, min_count: int, strength: float) -> "Judge":
        """Fit a judge. Its weights are rounded.

        Args:
            texts, labels: 1 positive, 0 negative. [N], (N,)
            ngrams: features are runs of 1 to this many words. In scripts without spaces they are runs of letters.
            min_count: an n-gram in fewer texts than this is not a feature.
            strength: the inverse of the L2 penalty (scikit-learn's C).
        """
        vectorizer = _vectorizer(ngrams, min_count)
        classifier = LogisticRegression(C=strength, max_iter=1000, random_state=0)
        classifier.fit(vectorizer.fit_transform(texts), labels)
        vectorizer.idf_ = np.round(vectorizer.idf_, _DECIMALS)
        classifier.coef_, classifier.intercept_ = (
            np.round(one, _DECIMALS) for one in (classifier.coef_, classifier.intercept_)
        )
        return cls(vectorizer, classifier)

    def positive(self, texts: Sequence[str]) -> np.ndarray:
        """Return P(positive) of each text, from 0 to 1. [N] -> (N,)."""
        return self.classifier.predict_proba(self.vectorizer.transform(texts))[:, 1]

    def strongest(self, count: int) -> dict[str, list[str]]:
        """Return the n-grams with the largest weights for each side, largest first."""
        order = np.argsort(self.classifier.coef_[0], kind="stable")
        names = self.vectorizer.get_feature_names_out()
        return {"positive": list(names[order[::-1][:count]]), "negative": list(names[order[:count]])}

    def save(self, folder: str | Path) -> None:
        """Write the judge to a folder."""
        with writing(folder) as aside:
            aside.mkdir()
            terms = {"ngrams": self.vectorizer.ngram_range[1], "terms": list(self.vectorizer.get_feature_names_out())}
            (aside / "judge.json").write_text(json.dumps(terms, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
            numbers = {
                "idf": self.vectorizer.idf_,
                "weights": self.classifier.coef_,
                "intercept": self.classifier.intercept_,
            }
            save_file({name: np.ascontiguousarray(array) for name, array in numbers.items()}, aside / "judge.safetensors")

    @classmethod
    def load(cls, folder: str | Path) -> "Judge":
        """Read a judge that `save` wrote.

        Raises:
            StageError: a file is missing or damaged.
        """
        folder = Path(folder)
        try:
            terms = json.loads((folder / "judge.json").read_text(encoding="utf-8"))
            numbers = load_file(folder / "judge.safetensors")
            vectorizer = _vectorizer(terms["ngrams"], 1, terms["terms"])
            vectorizer.idf_ = numbers["idf"]
            classifier = LogisticRegression()
            classifier.classes_ = np.array([0, 1])
            classifier.coef_, classifier.intercept_ = numbers["weights"], numbers["intercept"]
            if not all(np.isfinite(array).all() for array in numbers.values()):
                raise ValueError("a weight is not finite")
            judge = cls(vectorizer, classifier)
            judge.positive(["one two three"])  # fails for weights of another shape, and for another `ngrams` than a number
        except Exception as error:
            raise StageError(f"{folder} cannot be loaded: {first_line(error)}; {mend_of(folder)}") from None
        return judge


def _terms(text: str) -> list[str]:
    return _TERM.findall(spaced(text))


def _vectorizer(ngrams: int, min_count: int, terms: list[str] | None = None) -> TfidfVectorizer:
    # sublinear: a word that occurs twice does not count twice.
    return TfidfVectorizer(
        ngram_range=(1, ngrams),
        min_df=min_count,
        sublinear_tf=True,
        tokenizer=_terms,
        token_pattern=None,
        vocabulary=terms,
    )


def examine(positive: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return the accuracy, and the expected calibration error `ece` (1706.04599, eq. 3). (N,), (N,).

    The error is the mean distance of P(positive) from the share of positive texts, in ten bins of equal width.
    """
    table = reliability(positive, labels)
    return {
        "accuracy": float(((positive > 0.5) == labels).mean()),
        "ece": float((table["texts"] * (table["said"] - table["was"]).abs()).sum() / len(labels)),
    }


def examine_both(whole: np.ndarray, cut: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return `examine` of whole texts, and of the truncated texts as `accuracy_cut` and `ece_cut`. (N,), (N,), (N,)."""
    return examine(whole, labels) | {f"{key}_cut": figure for key, figure in examine(cut, labels).items()}


def reliability(positive: np.ndarray, labels: np.ndarray) -> pd.DataFrame:
    """Return a row for each of ten bins of P(positive). (N,), (N,) -> ten rows.

    Returns:
        texts: the number of texts in the bin.
        said: the mean P(positive) of these texts. NaN in a bin without texts.
        was: the share of them that is positive. NaN in a bin without texts.
    """
    bins = np.minimum((positive * _BINS).astype(int), _BINS - 1)
    found = pd.DataFrame({"bin": bins, "said": positive, "was": labels * 1.0}).groupby("bin")
    table = found.agg(texts=("was", "size"), said=("said", "mean"), was=("was", "mean")).reindex(range(_BINS))
    return table.assign(texts=table["texts"].fillna(0).astype(int))
