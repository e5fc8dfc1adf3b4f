"""Check that the results of the default run in this checkout agree with the README.

    dvc repro && python tests/default_run.py

Different machines give results that differ in the last bits. So the thresholds are a little below the figures of the README.
"""

import json
import sys
from pathlib import Path

import yaml

sys.path[:0] = ["stages", "."]
from tests.similar import largest_similarity  # noqa: E402


def rows(table: str, split: str | None = None) -> list[dict[str, str]]:
    """Return the rows of a prepared table, or of one of its splits."""
    lines = Path(f"data/prepared/{table}.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if split in (None, row["split"])]


def sides(split: str | None = None) -> list[str]:
    """Return the texts of both sides of the preference pairs."""
    return [row["prompt"] + row[side] for row in rows("preferences", split) for side in ("chosen", "rejected")]


def main() -> None:
    near = yaml.safe_load(Path("params.yaml").read_text())["data"]["near_duplicate"]
    judges = [row["text"] for row in rows("labelled")]
    held_out = sides("validation") + [row["text"] for row in rows("labelled", "test")]
    trained = sides("train") + [row["text"] for table in ("corpus", "labelled") for row in rows(table, "train")]
    trained += [row["prompt"] + row["response"] for row in rows("sft")]
    result = json.loads(Path("reports/evaluation.json").read_text())
    base, sft, rlhf, gain = (result[key] for key in ("base", "sft", "rlhf", "improvement_over_sft"))
    claims = {
        "at least 500 test prompts": rlhf["samples"] >= 500,
        "base mean_positive between 0.35 and 0.65": 0.35 <= base["mean_positive"] <= 0.65,
        "sft mean_positive within 0.1 of base": abs(sft["mean_positive"] - base["mean_positive"]) <= 0.1,
        "rlhf mean_positive at least 0.85": rlhf["mean_positive"] >= 0.85,
        "the interval of the improvement over SFT is above 0": gain["ci_low"] > 0,
        "rlhf perplexity 0.6 to 1.5 times that of sft": 0.6 <= rlhf["perplexity"] / sft["perplexity"] <= 1.5,
        "rlhf distinct_2 at least 0.7 times that of sft": rlhf["distinct_2"] >= 0.7 * sft["distinct_2"],
        "duplicated responses at most sft's plus 5 points": rlhf["duplicated"] <= sft["duplicated"] + 0.05,
        "at least 85 % of rlhf's reviews parse": rlhf["grammar_parses"] >= 0.85,
        "of those, at least 85 % are positive": rlhf["grammar_positive"] >= 0.85,
        "no text of the judge is a near-duplicate of a text of the pairs": largest_similarity(judges, sides()) < near,
        "no training text is a near-duplicate of a held-out text": largest_similarity(held_out, trained) < near,
    }
    for claim, holds in claims.items():
        print(f"{'ok  ' if holds else 'FAIL'} {claim}")
    for model in (base, sft, rlhf):
        print({key: model[key] for key in ("mean_positive", "perplexity", "distinct_2", "duplicated", "grammar_parses")})
    if not all(claims.values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
