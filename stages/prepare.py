"""Prepare the data: the corpus, demonstrations, preference pairs, labelled texts and prompts that the other stages use.

The source is a seeded grammar, a hub data set, or files below data/raw. Files hold labelled texts, or preferences of people, in
any of the shapes of rlhf_sentiment/data/shapes.py. Each row of a source has one outcome, and reports/data.json counts them.
Held-out texts and their near-duplicates are excluded from all training data. The judge shares no training data with the reward
model: its texts have no near-duplicate among the preference pairs.

`--preview N` shows N rows of each table and split, and writes nothing.
"""

from rlhf_sentiment.engine.start import begin

READS = ["data/hashes/prepare.json"]
WRITES = [
    "data/prepared/corpus.jsonl",
    "data/prepared/sft.jsonl",
    "data/prepared/preferences.jsonl",
    "data/prepared/labelled.jsonl",
    "data/prepared/prompts.jsonl",
    "data/prepared/rejected.jsonl",
    "data/prepared/README.md",
    "reports/data.json",
    "metrics/data.json",
    "plots/rows.csv",
]

if __name__ == "__main__":
    begun = begin("prepare", __doc__, READS, WRITES, has_preview=True)

from collections import Counter
from typing import NamedTuple

from rlhf_sentiment.data import synthetic
from rlhf_sentiment.data.card import card, preview
from rlhf_sentiment.data.leaks import drop_leaks
from rlhf_sentiment.data.pairs import about_pairs, flipped
from rlhf_sentiment.data.selection import prompts_too_long, splits_of
from rlhf_sentiment.data.shapes import PREFERENCES
from rlhf_sentiment.data.sizes import Sizes
from rlhf_sentiment.data.sources import Sources, read_sources
from rlhf_sentiment.data.synthetic import Ledger
from rlhf_sentiment.data.tables import TABLES, Tables, corpus_of, from_labels, from_preferences, labelled, prompts_of
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.messages import warn
from rlhf_sentiment.engine.outputs import writing
from rlhf_sentiment.engine.params import Settings
from rlhf_sentiment.engine.records import Row, write_metrics, write_rows, write_table
from rlhf_sentiment.engine.stage import stage
from rlhf_sentiment.settings.counts import Asked, number_of
from rlhf_sentiment.settings.data import DataSettings
from rlhf_sentiment.settings.evaluate import Asking
from rlhf_sentiment.settings.judge import JudgeSource
from rlhf_sentiment.settings.ppo import Prompted

OUTCOMES = {
    "rows_read": "read",
    "rows_kept": "kept",
    "rows_rejected": "rejected",
    "duplicates_dropped": "duplicates",
    "overlap_dropped": "overlaps",
}


class Params(Settings):
    """The sections of params.yaml that this stage reads."""

    data: DataSettings
    judge: JudgeSource
    ppo: Prompted
    evaluate: Asking


class Prepared(NamedTuple):
    """The tables, the rows that were dropped, the tree of reports/data.json, and the section `data` as it was used."""

    tables: Tables
    dropped: list[Row]
    figures: Row
    data: DataSettings


def main(params: Params) -> str:
    """Write the tables, the dropped rows, the card and the figures."""
    prepared = prepare(params)
    for name in TABLES:
        write_rows(f"data/prepared/{name}.jsonl", prepared.tables[name])
    write_rows("data/prepared/rejected.jsonl", prepared.dropped)
    with writing("data/prepared/README.md") as aside:
        aside.write_text(card(prepared.tables, prepared.figures, prepared.data), encoding="utf-8", newline="\n")
    write_metrics("reports/data.json", prepared.figures)
    write_metrics("metrics/data.json", totals(prepared.figures))
    write_table("plots/rows.csv", counts_of_rows(prepared.figures))
    return summary(prepared)


def preview_source(params: Params, count: int) -> str:
    """Show `count` rows of each table and split."""
    prepared = prepare(params)
    preview(prepared.tables, count)
    return summary(prepared)


def summary(prepared: Prepared) -> str:
    """Return the sizes of the tables, and the number of the source's rows with each outcome."""
    counts = ", ".join(f"{len(prepared.tables[name])} {name}" for name in TABLES)
    fates = totals(prepared.figures)
    dropped = ", ".join(f"{fates[key]} {OUTCOMES[key]}" for key in list(OUTCOMES)[2:])
    return f"{counts}; of {fates['rows_read']} rows {dropped}"


def totals(figures: Row) -> dict[str, int]:
    """Return the numbers of metrics/data.json: the rows of all files, by outcome."""
    return {key: sum(fates[key] for fates in figures["files"].values()) for key in OUTCOMES}


def counts_of_rows(figures: Row) -> list[Row]:
    """Return the rows of plots/rows.csv: the rows of each file by outcome, and the rows of each table and split."""
    of_files = {f"{file}, {name}": fates[key] for file, fates in figures["files"].items() for key, name in OUTCOMES.items()}
    of_tables = {f"{table}, {split}": rows for table, splits in figures["splits"].items() for split, rows in splits.items()}
    return [{"rows": name, "count": count} for name, count in (of_files | of_tables).items()]


def prepare(params: Params) -> Prepared:
    """Make everything that this stage writes.

    Raises:
        StageError: a source cannot be read or used, or has too few rows.
    """
    sources = read_sources(params.data, params.judge.source)
    data, ledger, sizes = sources.data, Ledger(sources.data.seed), Sizes(sources.data)
    tables = make_tables(sources, data, ledger, sizes)
    later = prompts_asked_later(params, sizes)
    sizes.refuse(sources.name)
    if sources.name != "synthetic":
        tables["preferences"] = flipped(tables["preferences"], data)

    made = {table: len(rows) for table, rows in tables.items()}
    intakes = list(sources.intakes.values())
    unsure = drop_leaks(tables, intakes, data, sources.grown, openings=sources.name != "synthetic")
    refuse_empty(tables)

    flips = [row.pop("flipped", False) for row in tables["preferences"]]
    pairs = about_pairs(tables["preferences"]) | {"flipped": sum(flips)}
    warn_of_lengths(pairs)
    prompts = sources.intakes.get("data.prompts" if data.prompts else "data.source")
    figures: Row = {
        "source": sources.name,
        "shape": sources.shape,
        "judge_source": sources.judge,
        "preferred_for": data.preferred_for if sources.shape in PREFERENCES else "positivity",
        "files": fates_of_files(sources, ledger),
        "sizes": sizes.came_to | later,
        "pairs": pairs,
        "prompts_too_long": prompts_too_long(prompts, data) if prompts else 0,
        "dropped": {table: made[table] - len(tables[table]) for table in TABLES},
        "dropped_unsure": unsure.total(),
        "splits": {table: dict(sorted(Counter(row["split"] for row in tables[table]).items())) for table in TABLES},
    }
    return Prepared(tables, [row for intake in intakes for row in intake.dropped] + ledger.dropped, figures, data)


def make_tables(sources: Sources, data: DataSettings, ledger: Ledger, sizes: Sizes) -> Tables:
    """Make the tables, before anything is dropped from them.

    Args:
        sources: the rows of files and hub data sets.
        data: the settings.
        ledger: draws the rows of the grammar.
        sizes: settles the number of rows of each table.

    Raises:
        StageError: the grammar has too few different rows.
    """
    # 1. The tables of `data.source`. The corpus and the prompts may have sources of their own.
    if sources.name == "synthetic":
        sizes.take_whole()
        tables = synthetic.tables(ledger, data, sizes)
    elif sources.shape == "labelled":
        tables = from_labels(sources.intakes["data.source"], data, sizes, not sources.own_judge)
    else:
        tables = from_preferences(sources.intakes["data.source"], data, sizes)
    if data.corpus:
        texts = splits_of(sources.intakes["data.corpus"])["train"]
        sizes.share_out(len(texts), {"corpus_texts": len(texts)})
        tables["corpus"] = corpus_of(sources.intakes["data.corpus"], texts, data, sizes)
    if data.prompts:
        tables["prompts"] = prompts_of(sources.intakes["data.prompts"], data, sizes)

    # 2. The judge's texts: from a source of its own, or from the half of `data.source` that no other table uses.
    if sources.judge == "synthetic":
        sizes.take_whole("labelled_texts", "labelled_held_out")
        tables["labelled"] = synthetic.labelled(ledger, sizes)
    elif sources.own_judge:
        tables["labelled"] = labelled(sources.intakes["judge.source"], data, [], sizes)
    else:
        test_prompts = [row for row in tables["prompts"] if row["split"] == "test"]
        tables["labelled"] = labelled(sources.intakes["data.source"], data, test_prompts, sizes)
    return tables


def prompts_asked_later(params: Params, sizes: Sizes) -> dict[str, int]:
    """Return the number of prompts that each setting of `ppo` and `evaluate` comes to.

    `sizes.short` notes the settings that ask for more prompts than there are.
    """
    asked: dict[str, tuple[Asked, int, int]] = {  # the setting, the least that works, the most that there is
        "ppo.batch_size": (params.ppo.batch_size, 2, sizes["prompts_train"]),
        "ppo.validation_prompts": (params.ppo.validation_prompts, 1, sizes["prompts_validation"]),
    }
    if params.evaluate.prompts_file is None:
        asked["evaluate.num_samples"] = (params.evaluate.num_samples, 2, sizes[f"prompts_{params.evaluate.split}"])
    came_to = {}
    for setting, (count, least, most) in asked.items():
        number = max(number_of(count, most), least)
        came_to[setting.replace(".", "_")] = number
        if number > most:
            sizes.lacks(setting, count, most if most >= least else 0)
            if 0 < most < least:
                sizes.short[setting] = f"{setting} needs at least {least} prompts, but the source has {most}"
    return came_to


def refuse_empty(tables: Tables) -> None:
    """Refuse tables that have no training rows left.

    Raises:
        StageError: a table has none.
    """
    for table in TABLES:
        if not any(row["split"] == "train" for row in tables[table]):
            raise StageError(
                f"no row of {table} is left: all are near-duplicates of held-out texts or of pairs; use more varied texts, "
                "or raise data.near_duplicate"
            )


def warn_of_lengths(pairs: Row) -> None:
    """Warn if the chosen response is the longer or the shorter one too often."""
    if not 0.4 <= pairs["chosen_longer"] <= 0.6:
        often = f"the chosen response is the longer one in {pairs['chosen_longer']:.0%} of the training pairs"
        warn(
            "prepare",
            f"{often}, so a reward model can learn length; compare accuracy_of_longer in reports/reward.json",
        )


def fates_of_files(sources: Sources, ledger: Ledger) -> dict[str, dict[str, int]]:
    """Count the rows of each file by outcome, and of the grammar's rows."""
    counted: dict[str, dict[str, int]] = {"grammar": ledger.account()} if sources.grown else {}
    for setting, intake in sources.intakes.items():
        for file, fates in intake.files.items():
            counted[f"{file} as {setting.replace('.', '_')}" if file in counted else file] = fates
    return counted


if __name__ == "__main__":
    stage(begun, Params, main, preview_source, lower="data.max_characters")
