"""Train the judge: a sentiment classifier that shares no training data with the reward model.

The reward model sees neither the judge's labelled texts nor near-duplicates of them. The judge is also of another kind: n-grams
and logistic regression. This stage measures it on held-out texts: whole, truncated to the length of a response, and negated.
`evaluate` measures the other judges on such texts too.
"""

from rlhf_sentiment.engine.start import begin

READS = ["data/prepared/labelled.jsonl"]
WRITES = ["models/judge", "reports/judge.json", "metrics/judge.json"]

if __name__ == "__main__":
    begun = begin("judge", __doc__, READS, WRITES)

import numpy as np

from rlhf_sentiment.data.text import cut_words
from rlhf_sentiment.engine.arithmetic import Arithmetic
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.records import read_rows, write_metrics
from rlhf_sentiment.engine.stage import stage
from rlhf_sentiment.evaluation.classifier import Judge, examine, examine_both, is_negated
from rlhf_sentiment.settings.judge import JudgeSettings


class Params(Arithmetic):
    """The settings that the stage reads."""

    judge: JudgeSettings


def main(params: Params) -> str:
    """Train the judge, and measure it on held-out texts."""
    settings = params.judge
    rows = read_rows("data/prepared/labelled.jsonl", {"text": str, "label": int, "split": str})
    texts = {split: [row["text"] for row in rows if row["split"] == split] for split in ("train", "test")}
    labels = {split: np.array([row["label"] for row in rows if row["split"] == split]) for split in ("train", "test")}
    for split, found in labels.items():
        if set(found) != {0, 1}:
            raise StageError(f"data/prepared/labelled.jsonl: the split {split} needs texts of both labels, 0 and 1")

    judge = Judge.train(texts["train"], labels["train"], settings.ngrams, settings.min_count, settings.strength)
    judge.save("models/judge")

    held_out, truth = texts["test"], labels["test"]
    whole = judge.positive(held_out)
    cut = judge.positive([cut_words(text, settings.cut_words) for text in held_out])
    negated = np.array([is_negated(text) for text in held_out])
    classifier = examine_both(whole, cut, truth)
    if negated.any():
        classifier["accuracy_negated"] = examine(whole[negated], truth[negated])["accuracy"]
    figures = {
        "texts": len(texts["train"]),
        "texts_held_out": len(held_out),
        "texts_negated": int(negated.sum()),
        "cut_words": settings.cut_words,
        "classifier": classifier,
        "strongest": {side: ", ".join(terms) for side, terms in judge.strongest(12).items()},
    }
    write_metrics("reports/judge.json", figures)
    write_metrics("metrics/judge.json", {name: classifier[name] for name in ("accuracy", "accuracy_cut")})
    result = f"accuracy {classifier['accuracy']:.3f}, {classifier['accuracy_cut']:.3f} on truncated texts"
    return result + (f", {classifier['accuracy_negated']:.3f} on negated texts" if negated.any() else "")


if __name__ == "__main__":
    stage(begun, Params, main, lower="data.labelled_texts, or judge.ngrams")
