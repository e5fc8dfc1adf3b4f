"""Prepare the data: the corpus, demonstrations, preference pairs, labelled texts and prompts that the other stages use.

The source is a seeded grammar (rlhf_sentiment/synthetic.py) or labelled texts (rlhf_sentiment/reviews.py). Either way
no test prompt is in what trains a model, and the texts that train the judge have no near-duplicate among the preference
pairs: the judge is nobody's pupil.
"""

from collections import Counter

from rlhf_sentiment import reviews, synthetic
from rlhf_sentiment.config import Settings
from rlhf_sentiment.records import write_metrics, write_rows
from rlhf_sentiment.run import stage
from rlhf_sentiment.settings.data import DataSettings

READS = ["data/checked.json", "data/raw"]
WRITES = [
    "data/prepared/corpus.jsonl",
    "data/prepared/sft.jsonl",
    "data/prepared/preferences.jsonl",
    "data/prepared/labelled.jsonl",
    "data/prepared/prompts.jsonl",
    "data/prepared/rejected.jsonl",
    "metrics/data.json",
]


class Params(Settings):
    data: DataSettings


def main(params: Params) -> str:
    source = synthetic if params.data.source == "synthetic" else reviews
    prepared = source.prepare(params.data)
    for name, rows in prepared.tables.items():
        write_rows(f"data/prepared/{name}.jsonl", rows)
    write_rows("data/prepared/rejected.jsonl", prepared.rejected)
    splits = {name: dict(sorted(Counter(row["split"] for row in rows).items())) for name, rows in prepared.tables.items()}
    write_metrics(
        "metrics/data.json",
        {
            "source": params.data.source,
            "files": prepared.files,
            "near_duplicates_dropped": prepared.near_duplicates_dropped,
            "splits": splits,
        },
    )
    counts = ", ".join(f"{len(rows)} {name}" for name, rows in prepared.tables.items())
    return f"{counts}; {len(prepared.rejected)} rows dropped"


if __name__ == "__main__":
    stage("prepare", __doc__, Params, main, READS, WRITES)
