"""Prepare the data: the corpus, demonstrations, preference pairs, labelled texts and prompts that the other stages use.

The source is a seeded grammar, a hub data set, or files below data/raw, of labelled texts or of preferences that people
gave, in any of the shapes of rlhf_sentiment/data/shapes.py. Each row has one fate, and metrics/data.json counts them. Whatever
the source, no validation or test text, nor a near-duplicate of one, is in what trains a model, and the texts that train
the judge have no near-duplicate among the preference pairs: the judge is nobody's pupil.

`--preview N` shows N rows of each table and split, and writes nothing.
"""

from rlhf_sentiment.engine.start import stage  # isort: split

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from rlhf_sentiment.data import synthetic
from rlhf_sentiment.data.card import card, preview
from rlhf_sentiment.data.files import File, files_at, hub_files
from rlhf_sentiment.data.intake import Intake, Texts
from rlhf_sentiment.data.near_duplicates import Sketched, sketched
from rlhf_sentiment.data.shapes import PREFERENCES
from rlhf_sentiment.data.sizes import Sizes
from rlhf_sentiment.data.synthetic import Ledger
from rlhf_sentiment.data.tables import (
    Tables,
    about_pairs,
    apart,
    corpus_of,
    from_labels,
    from_preferences,
    labelled,
    not_opening,
    prompts_of,
    prompts_too_long,
    splits_of,
    texts_of,
    turned_round,
)
from rlhf_sentiment.engine.artifacts import writing
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.messages import shown, warn
from rlhf_sentiment.engine.params import Settings
from rlhf_sentiment.engine.records import Row, write_metrics, write_rows
from rlhf_sentiment.settings.counts import Asked, number_of
from rlhf_sentiment.settings.data import DataSettings, HubSettings
from rlhf_sentiment.settings.evaluate import Asking
from rlhf_sentiment.settings.judge import JudgeSource
from rlhf_sentiment.settings.ppo import Prompted

READS = ["data/checked.json", "data/raw"]
TABLES = ["corpus", "sft", "preferences", "labelled", "prompts"]
WRITES = [
    *(f"data/prepared/{name}.jsonl" for name in (*TABLES, "rejected")),
    "data/prepared/README.md",
    "metrics/data.json",
]


class Params(Settings):
    data: DataSettings
    judge: JudgeSource
    ppo: Prompted
    evaluate: Asking


class Prepared(NamedTuple):
    """What a source becomes: the tables, the rows that were dropped, and what metrics/data.json says."""

    tables: Tables
    dropped: list[Row]
    metrics: Row


# Demonstrations go in twos, one of each sentiment or side, so that they stay balanced.
GROUPS = {"sft": 2}


def main(params: Params) -> str:
    prepared = prepare(params)
    for name in TABLES:
        write_rows(f"data/prepared/{name}.jsonl", prepared.tables[name])
    write_rows("data/prepared/rejected.jsonl", prepared.dropped)
    with writing("data/prepared/README.md") as aside:
        aside.write_text(card(prepared.tables, prepared.metrics, params.data), encoding="utf-8", newline="\n")
    write_metrics("metrics/data.json", prepared.metrics)
    return summary(prepared)


def look(params: Params, count: int) -> str:
    """Show `count` rows of each table and split."""
    prepared = prepare(params)
    preview(prepared.tables, count)
    return summary(prepared)


def summary(prepared: Prepared) -> str:
    """The sizes of the tables, and how many rows of the source had which fate."""
    counts = ", ".join(f"{len(prepared.tables[name])} {name}" for name in TABLES)
    fates: Counter[str] = Counter()
    for file in prepared.metrics["files"].values():
        fates.update(file)
    names = {"rows_rejected": "rejected", "duplicates_dropped": "duplicates", "overlap_dropped": "overlaps"}
    return f"{counts}; of {fates['rows_read']} rows " + ", ".join(f"{fates[key]} {name}" for key, name in names.items())


def prepare(params: Params) -> Prepared:
    """Everything that this stage writes.

    Raises:
        StageError: a source cannot be read or used, or has too few rows.
    """
    data, ledger, sizes = params.data, Ledger(params.data.seed), Sizes(params.data)
    plain = data.elsewhere()
    intakes: dict[str, Intake] = {}  # by the setting that names the source
    own_judge = params.judge.source not in ("data", data.source)

    # 1. The sources, each of whose rows is kept or has a reason why not.
    name, files = source_of(data)
    if name != "synthetic":
        wanted, share = (*PREFERENCES, "labelled"), 0.0 if own_judge else 0.5
        intakes["data.source"] = source = Intake(files, wanted, data, "data.source", data.prompt_words, share)
        if source.shape != "labelled" and not own_judge:
            lacks = "no labels, so that no judge can learn from it; set judge.source"
            raise StageError(f"{name} holds {source.shape} and {lacks}")
    if data.corpus:
        intakes["data.corpus"] = Intake(files_at(data.corpus, "data.corpus"), ("plain",), plain, "data.corpus", 0, 0.0)
    if data.prompts:
        intakes["data.prompts"] = Intake(files_at(data.prompts, "data.prompts"), ("prompts",), plain, "data.prompts", 0, 0.0)
    if own_judge and params.judge.source != "synthetic":
        judges = files_of_judge(params.judge.source)
        intakes["judge.source"] = Intake(judges, ("labelled",), plain, "judge.source", 0, 1.0)

    # 2. The tables that the source makes; texts for the base model, and prompts, may come from elsewhere.
    if name == "synthetic":
        sizes.take_whole()
        shape, tables = "grammar", synthetic.tables(ledger, data, sizes)
    else:
        shape = source.shape
        labels = shape == "labelled"
        tables = from_labels(source, data, sizes, not own_judge) if labels else from_preferences(source, data, sizes)
    if data.corpus:
        texts = splits_of(intakes["data.corpus"])["train"]
        sizes.share_out(len(texts), {"corpus_texts": len(texts)})
        tables["corpus"] = corpus_of(intakes["data.corpus"], texts, data, sizes)
    if data.prompts:
        tables["prompts"] = prompts_of(intakes["data.prompts"], data, sizes)

    # 3. The judge's texts: of the half that is its alone, or of a source of its own.
    if (params.judge.source if own_judge else name) == "synthetic":
        sizes.take_whole("labelled_texts", "labelled_held_out")
        tables["labelled"] = synthetic.labelled(ledger, sizes)
    else:
        test_prompts = [] if own_judge else [row for row in tables["prompts"] if row["split"] == "test"]
        tables["labelled"] = labelled(intakes["judge.source"] if own_judge else source, data, test_prompts, sizes)

    later = asked_later(params, sizes)
    sizes.refuse(name)
    if name != "synthetic":
        tables["preferences"] = turned_round(tables["preferences"], data)

    # 4. Apart: what trains from what is held out, the judge's lessons from the pairs, its exam from both.
    made = {table: len(rows) for table, rows in tables.items()}
    grown = "synthetic" in (name, params.judge.source)
    unsure = keep_apart(tables, list(intakes.values()), data, grown, openings=name != "synthetic")
    for table in TABLES:
        if not any(row["split"] == "train" for row in tables[table]):
            raise StageError(
                f"each row of {table} nearly equals a text that is held out, or that the judge must not meet; bring texts that "
                "differ more, or raise data.near_duplicate"
            )

    counted: dict[str, dict[str, int]] = {"grammar": ledger.account()} if grown else {}
    for setting, intake in intakes.items():
        for file, fates in intake.files.items():
            counted[f"{file} as {setting.replace('.', '_')}" if file in counted else file] = fates
    flipped = [row.pop("flipped", False) for row in tables["preferences"]]
    pairs = about_pairs(tables["preferences"]) | {"flipped": sum(flipped)}
    if not 0.4 <= pairs["chosen_longer"] <= 0.6:
        often = f"the chosen response is the longer one in {pairs['chosen_longer']:.0%} of the training pairs"
        warn("prepare", f"{often}; a reward model can learn length from them (metrics/reward.json measures it)")
    metrics: Row = {
        "source": name,
        "shape": shape,
        "judge_source": params.judge.source if own_judge else name,
        "preferred_for": data.preferred_for if shape in PREFERENCES else "positivity",
        "files": counted,
        "sizes": sizes.came_to | later,
        "pairs": pairs,
        "prompts_too_long": prompts_too_long(asked, data)
        if (asked := intakes.get("data.prompts" if data.prompts else "data.source"))
        else 0,
        "dropped": {table: made[table] - len(tables[table]) for table in TABLES},
        "dropped_unsure": unsure.total(),
        "splits": {table: dict(sorted(Counter(row["split"] for row in tables[table]).items())) for table in TABLES},
    }
    return Prepared(tables, [row for intake in intakes.values() for row in intake.dropped] + ledger.dropped, metrics)


def asked_later(params: Params, sizes: Sizes) -> dict[str, int]:
    """What the counts of prompts in `ppo` and `evaluate` come to; `sizes.short` says which ask for more than there are."""
    asked: dict[str, tuple[Asked, int, int]] = {  # what is asked for, the least that works, the most that there is
        "ppo.batch_size": (params.ppo.batch_size, 2, sizes["prompts_train"]),
        "ppo.validation_prompts": (params.ppo.validation_prompts, 1, sizes["prompts_validation"]),
    }
    if params.evaluate.prompts_file is None:
        asked["evaluate.num_samples"] = (params.evaluate.num_samples, 2, sizes["prompts_test"])
    came_to = {}
    for setting, (count, least, most) in asked.items():
        number = max(number_of(count, most), least)
        came_to[setting.replace(".", "_")] = number
        if number > most:
            sizes.lacks(setting, count, most if most >= least else 0)
            if 0 < most < least:
                sizes.short[setting] = f"{setting} needs {least} prompts, there is {most}"
    return came_to


def keep_apart(tables: Tables, intakes: list[Intake], data: DataSettings, grown: bool, openings: bool) -> Counter[str]:
    """Drop from `tables` what must not be there: near-duplicates of held-out texts, and of the pairs among the judge's.

    A text that is much like too many of them to compare it with each is dropped, too: it may be a near-duplicate. The number
    of those of each table is what is returned, and a warning names the first.

    Args:
        intakes: the sources whose validation and test texts are held out, all of them.
        grown: the grammar wrote some of the tables: what they hold out themselves counts, and pairs sentence by sentence,
            which is how its labelled texts are made.
        openings: also what opens with a held-out prompt: a test prompt opens nothing that trains, a validation prompt nothing
            that trains a language or reward model. (The grammar's prompts can be one word.)
    """
    held_out: list[Sequence[str]] = [Texts(intake, ("validation", "test")) for intake in intakes]
    if grown:
        rows = [row for table in TABLES for row in tables[table] if row["split"] != "train"]
        held_out.append([text for row in rows for text in texts_of(row)])
    unsure: Counter[str] = Counter()

    def drop(table: str, split: str, others: Sketched) -> None:
        tables[table], crowded = apart(tables[table], split, others, data.near_duplicate, GROUPS.get(table, 1))
        unsure[table] += len(crowded)
        if crowded:
            why = f"each is much like more of the texts that must be apart than are compared; the first: {shown(crowded[0])}"
            warn("prepare", f"{len(crowded)} texts of {table} are dropped, since {why}")

    for texts in held_out:
        others = sketched(texts, "prepare: near-duplicates of held-out texts")
        for table in TABLES:
            drop(table, "train", others)
    prompts = {split: [row["prompt"] for row in tables["prompts"] if row["split"] == split] for split in ("validation", "test")}
    for table in ("corpus", "sft", "preferences", "labelled") if openings else ():
        theirs = prompts["test"] + (prompts["validation"] if table != "labelled" else [])
        tables[table] = not_opening(tables[table], "train", theirs, GROUPS.get(table, 1))

    paired = [text for row in tables["preferences"] for text in texts_of(row)]
    if grown:
        paired += [sentence for text in paired for sentence in re.split(r"(?<=\.) ", text)]
    pupils = sketched(paired, "prepare: near-duplicates of the pairs")
    for split in ("train", "test"):
        drop("labelled", split, pupils)
    return unsure


def source_of(data: DataSettings) -> tuple[str, list[File]]:
    """The source that is used, and its files; `auto` falls back to `synthetic`, and says so, where the hub cannot be read.

    Raises:
        StageError: it cannot be read.
    """
    if data.source == "synthetic":
        return "synthetic", []
    if data.source not in ("hub", "auto"):
        return data.source, files_at(data.source, "data.source")
    try:
        return str(data.hub.dataset), hub_files(data.hub, "data.hub.dataset")
    except StageError as error:
        if data.source == "hub":
            raise
        warn("prepare", f"{error}; data.source auto goes on with the synthetic source")
        return "synthetic", []


def files_of_judge(source: str) -> list[File]:
    """The files of a source of the judge's own: a path, or OWNER/NAME@COMMIT of the hub.

    Raises:
        StageError: it cannot be read.
    """
    name, _, revision = source.partition("@")
    if not revision:
        return files_at(source, "judge.source")
    hub = HubSettings(dataset=name, config=None, folder=None, revision=revision, train="train", validation=None, test="test")
    return hub_files(hub, "judge.source")


if __name__ == "__main__":
    stage("prepare", __doc__, Params, main, READS, WRITES, look, lower="data.max_characters")
