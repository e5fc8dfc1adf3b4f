"""Select the records of a table, and the prompts.

A hash of each record decides which records a table takes. A new record takes the place of at most one other record in a table,
and no other record moves to another split.
"""

import hashlib
import math
from collections.abc import Sequence

import pandas as pd

from ..engine.records import Row
from ..settings.data import DataSettings
from .chat import beside
from .intake import SPLITS, Intake
from .readers import Plain, Ranked
from .sizes import Sizes
from .text import digest_of


def splits_of(source: Intake) -> dict[str, pd.DataFrame]:
    """Return the rows of `source.table` for each split. A split may be empty."""
    return {name: source.table[source.table["split"] == name] for name in SPLITS}


def text_of(source: Intake, number: int) -> str:
    """Return a record as one text. If the record has ranked responses, the text contains the best one."""
    record = source.record(number)
    if isinstance(record, Ranked):
        return record.prompt + record.responses[record.scores.index(max(record.scores))]
    return record.text if isinstance(record, Plain) else record.prompt + record.response


def choose(table: pd.DataFrame, count: int, name: str, data: DataSettings, by: str = "digest") -> list[int]:
    """Return `count` rows of the table, in the order of a hash of the seed, the purpose `name` and the column `by`."""
    places = [place_in_line(digest, name, data) for digest in table[by]]
    return [number for _, number in sorted(zip(places, table.index.tolist(), strict=True))[:count]]


def place_in_line(digest: int, name: str, data: DataSettings) -> bytes:
    """Return a hash that orders the records for a table. It depends on the seed, the table and the record alone."""
    return hashlib.sha256(f"{data.seed}/{name}/{digest}".encode()).digest()


def balanced(table: pd.DataFrame, count: int, name: str, data: DataSettings) -> tuple[list[int], list[int]]:
    """Choose `count` positive and `count` negative rows."""
    return tuple(choose(table[table["label"] == label], count, name, data) for label in (1, 0))  # type: ignore[return-value]


def smaller_side(table: pd.DataFrame) -> int:
    """Return the number of texts of the rarer sentiment."""
    return int(table["label"].value_counts().reindex([0, 1], fill_value=0).min())


def prompts_there(table: pd.DataFrame, data: DataSettings, split: str, asked: bool = True) -> dict[str, int]:
    """Return the number of prompts that a table has for `split`, by the name of their count; nothing if not `asked`."""
    return {f"prompts_{split}": len(short_prompts(table, data))} if asked else {}


def short_prompts(table: pd.DataFrame, data: DataSettings) -> pd.DataFrame:
    """Return one row for each different prompt of at most `max_prompt_words` words."""
    return table[table["prompt_words"] <= (data.max_prompt_words or math.inf)].drop_duplicates("prompt")


def openings(source: Intake, table: pd.DataFrame, data: DataSettings, split: str, sizes: Sizes) -> list[Row]:
    """Choose different prompts of a table, each of at most `max_prompt_words` words."""
    name = f"prompts_{split}"
    chosen = choose(short_prompts(table, data), sizes[name], name, data, by="prompt")
    records = (source.record(number) for number in chosen)
    return [{"prompt": record[0], "split": split} | beside(record.messages) for record in records]


def prompts_too_long(source: Intake, data: DataSettings) -> int:
    """Count the different prompts of more than `max_prompt_words` words."""
    longer = source.table["prompt_words"] > (data.max_prompt_words or math.inf)
    return int(source.table.loc[longer, "prompt"].nunique())


def without(table: pd.DataFrame, prompts: Sequence[Row]) -> pd.DataFrame:
    """Return the rows that begin with none of `prompts`."""
    return table[~table["prompt"].isin([digest_of(row["prompt"]) for row in prompts])]
