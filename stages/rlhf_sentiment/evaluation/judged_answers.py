"""Write every answer with the judges' opinions, so that new statistics need no model."""

import csv
from pathlib import Path

import pandas as pd

from ..engine.compression import gzipped
from ..engine.outputs import writing
from .panel import Opinions
from .samples import Samples


def table_of_answers(samples: Samples, opinions: dict[str, Opinions]) -> pd.DataFrame:
    """Return a row for each answer.

    Args:
        samples: the answers of the contestants.
        opinions: what the judges say of them. contestant -> opinions

    Returns:
        The columns prompt, model, sample, response, tokens (their number), finished, and `<judge>_positive` for each judge.
    """
    tables = []
    for model, rows in samples.answers.items():
        table = pd.DataFrame(rows)[["prompt", "sample", "response", "tokens", "finished"]]
        table.insert(1, "model", model)
        table["tokens"] = table["tokens"].map(len)
        tables.append(table.assign(**{f"{judge}_positive": p for judge, p in opinions[model].positive.items()}))
    return pd.concat(tables, ignore_index=True)


def write_answers(path: str | Path, table: pd.DataFrame) -> None:
    """Write a compressed CSV, with six digits after the point.

    All texts have quotes, because Python's csv puts none around a lone carriage return, which would end a row.
    """
    text = table.round(6).to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    with writing(path) as aside:
        aside.write_bytes(gzipped(text.encode()))
