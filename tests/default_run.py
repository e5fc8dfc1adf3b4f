"""Assert that the default run in this checkout did what the README says: `python tests/default_run.py` after `dvc repro`.

One kind of machine differs from another in the last bits, so the bar for the RLHF model is a little below the figure
that the README shows.
"""

import json
import sys
from pathlib import Path

import yaml
from sklearn.feature_extraction.text import CountVectorizer

sys.path.insert(0, "stages")
from rlhf_sentiment.text import shingles


def nearest_to_a_pair() -> float:
    """The largest Jaccard similarity of a labelled text and a side of a preference pair, all of them compared."""

    def rows(name: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in Path(f"data/prepared/{name}.jsonl").read_text().splitlines()]

    vectorizer = CountVectorizer(analyzer=shingles, binary=True)
    pupils = vectorizer.fit_transform(
        row["prompt"] + row[side] for row in rows("preferences") for side in ("chosen", "rejected")
    )
    judges = [shingles(row["text"]) for row in rows("labelled")]
    common = (vectorizer.transform(row["text"] for row in rows("labelled")) @ pupils.T).tocoo()
    sizes = pupils.sum(axis=1).A1
    return max(n / (len(judges[i]) + sizes[j] - n) for i, j, n in zip(common.row, common.col, common.data, strict=True))


def main() -> None:
    settings = yaml.safe_load(Path("params.yaml").read_text())
    result = json.loads(Path("metrics/evaluation.json").read_text())
    base, sft, rlhf, gain = (result[key] for key in ("base", "sft", "rlhf", "improvement_over_sft"))
    claims = {
        "at least 500 test prompts": rlhf["samples"] >= 500,
        "base mean_positive between 0.35 and 0.65": 0.35 <= base["mean_positive"] <= 0.65,
        "sft mean_positive within 0.1 of base": abs(sft["mean_positive"] - base["mean_positive"]) <= 0.1,
        "rlhf mean_positive at least 0.85": rlhf["mean_positive"] >= 0.85,
        "the interval of the improvement over SFT is clear of 0": gain["ci_low"] > 0,
        "rlhf perplexity 0.6 to 1.5 times that of sft": 0.6 <= rlhf["perplexity"] / sft["perplexity"] <= 1.5,
        "rlhf distinct_2 at least 0.7 times that of sft": rlhf["distinct_2"] >= 0.7 * sft["distinct_2"],
        "duplicated responses at most sft's plus 5 points": rlhf["duplicated"] <= sft["duplicated"] + 0.05,
        "at least 85 % of rlhf's reviews parse": rlhf["grammar_parses"] >= 0.85,
        "of those, at least 85 % are positive": rlhf["grammar_positive"] >= 0.85,
        "no text of the judge nearly stands among the pairs": nearest_to_a_pair() < settings["data"]["near_duplicate"],
    }
    for claim, holds in claims.items():
        print(f"{'ok  ' if holds else 'FAIL'} {claim}")
    for model in (base, sft, rlhf):
        print({key: model[key] for key in ("mean_positive", "perplexity", "distinct_2", "duplicated", "grammar_parses")})
    if not all(claims.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
