"""What the prepare stage makes of a source: the fate of each row, the tables, and what never meets."""

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import prepare as stage
from prepare import Prepared
from rlhf_sentiment.data.grammar import NEGATIVE, polarity_of
from rlhf_sentiment.data.selection import place_in_line
from rlhf_sentiment.data.splits import split_of
from rlhf_sentiment.data.text import cleaned, digest_of, normalised, place_of
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.records import Row
from rlhf_sentiment.settings.data import DataSettings

from .conftest import SHARED, prepare_params, tiny_params, write_reviews
from .similar import largest_similarity

NAMES = ("rows_read", "rows_kept", "rows_rejected", "duplicates_dropped", "overlap_dropped")


def settings(**changes: Any) -> DataSettings:
    small = {
        "source": "data/raw/made",
        "prompt_words": 3,
        "corpus_texts": 20,
        "sft_rows": 20,
        "pairs": 20,
        "pairs_held_out": 2,
        "disagreement": 0.0,
        "labelled_texts": 60,
        "labelled_held_out": 20,
        "prompts_train": 20,
        "prompts_validation": 4,
        "prompts_test": 20,
    }
    return DataSettings(**(tiny_params()["data"] | small | changes))


def prepare(data: DataSettings, judge: str = "data", **changes: Any) -> Prepared:
    return stage.prepare(prepare_params(data, judge, **changes))


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder data/raw/made of reviews that the grammar wrote, 400 for training and 100 for test."""
    monkeypatch.chdir(tmp_path)
    write_reviews(tmp_path / "data/raw/made", train=400, test=100)
    return tmp_path / "data/raw/made"


def rows_of(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def write(file: Path, rows: list[Row]) -> int:
    return file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_each_row_has_one_fate(made: Path) -> None:
    train, test = rows_of(made / "train.jsonl"), rows_of(made / "test.jsonl")
    before = prepare(settings())
    train += [
        {"text": train[0]["text"].upper() + "<br /><br />", "label": train[0]["label"]},  # the same text
        {"text": train[1]["text"], "label": 1 - train[1]["label"]},
        {"text": "  ", "label": 1},
        {"text": "Three words only", "label": 0},
        {"text": "Four words are enough.", "label": 0},
        {"text": "But not with this label.", "label": ["1"]},
        {"text": None, "label": 0},
        {"text": "Nobody said what this is.", "label": None},
    ]
    test += [test[1], {"text": train[5]["text"], "label": train[5]["label"]}]
    write(made / "train.jsonl", train)
    write(made / "test.jsonl", test)
    after = prepare(settings())
    assert [fates["rows_kept"] for fates in before.metrics["files"].values()] == [400, 100]
    assert after.metrics["files"] == {
        "made/train_jsonl": dict(zip(NAMES, (408, 401, 5, 2, 0), strict=True)),
        "made/test_jsonl": dict(zip(NAMES, (102, 100, 0, 1, 1), strict=True)),
    }
    assert [(row["file"], row["row"], row["reason"]) for row in after.dropped] == [
        ("data/raw/made/train.jsonl", 401, "duplicate"),
        ("data/raw/made/train.jsonl", 402, "duplicate, with the other label"),
        ("data/raw/made/train.jsonl", 403, "no text"),
        ("data/raw/made/train.jsonl", 404, "3 words, not more than a prompt's 3"),
        ("data/raw/made/train.jsonl", 406, "label is ['1']: should be a number or a word"),
        ("data/raw/made/train.jsonl", 407, "no text"),
        ("data/raw/made/train.jsonl", 408, "no label"),
        ("data/raw/made/test.jsonl", 101, "duplicate"),
        ("data/raw/made/test.jsonl", 102, "overlap"),
    ]


def test_tables_are_what_was_asked_for(made: Path) -> None:
    tables = prepare(settings()).tables
    labels = {normalised(row["text"]): row["label"] for name in ("train", "test") for row in rows_of(made / f"{name}.jsonl")}
    assert [len(tables[name]) for name in ("corpus", "sft", "preferences", "prompts")] == [20, 20, 22, 44]
    for row in tables["preferences"]:
        assert labels[normalised(row["prompt"] + row["chosen"])] == 1
        assert labels[normalised(row["prompt"] + row["rejected"])] == 0
    sides = sides_of(tables["preferences"])
    assert len(sides) == len(set(sides)), "no review is in two pairs"
    for row in tables["sft"]:
        assert len(row["prompt"].split()) == 3
        assert row["response"].startswith(" ")
        assert labels[normalised(row["prompt"] + row["response"])] == row["label"]
    assert Counter(row["label"] for row in tables["sft"]) == {0: 10, 1: 10}
    assert {row["split"] for row in tables["corpus"] + tables["sft"]} == {"train"}
    prompts = Counter(row["split"] for row in tables["prompts"])
    assert prompts == {"train": 20, "validation": 4, "test": 20}
    assert len({normalised(row["prompt"]) for row in tables["prompts"]}) == 44, "a prompt is in one split, once"


def sides_of(preferences: list[Row]) -> list[str]:
    return [row["prompt"] + row[side] for row in preferences for side in ("chosen", "rejected")]


def assert_nothing_meets(prepared: Prepared, test: set[str]) -> None:
    """No test text, and no opening of a test prompt, is in what trains, and what trains the judge trains nothing else."""
    tables = prepared.tables
    trained = [row["prompt"] + row["response"] for row in tables["sft"]] + [row["text"] for row in tables["corpus"]]
    paired = sides_of(tables["preferences"])
    judged = [row["text"] for row in tables["labelled"] if row["split"] == "train"]
    openings = {
        split: {normalised(row["prompt"]) + " " for row in tables["prompts"] if row["split"] == split}
        for split in ("validation", "test")
    }
    for text in map(normalised, trained + paired + judged):
        assert text not in test
        words = text.split(" ")
        assert not {" ".join(words[:n]) + " " for n in range(3, 8)} & openings["test"]
    for text in map(normalised, trained):
        words = text.split(" ")
        assert not {" ".join(words[:n]) + " " for n in range(3, 8)} & openings["validation"]
    assert not set(map(normalised, judged)) & set(map(normalised, trained + paired))


def assert_nothing_is_near(prepared: Prepared, held_out: list[str], threshold: float = 0.6) -> None:
    """No text that trains is a near-duplicate of a held-out one."""
    rows = [row for name in ("corpus", "sft", "labelled") for row in prepared.tables[name] if row["split"] == "train"]
    trained = [row["text"] if "text" in row else row["prompt"] + row["response"] for row in rows]
    trained += sides_of([row for row in prepared.tables["preferences"] if row["split"] == "train"])
    assert largest_similarity(held_out, trained) < threshold


def test_nothing_meets(made: Path) -> None:
    test = [row["text"] for row in rows_of(made / "test.jsonl")]
    assert_nothing_meets(prepare(settings()), set(map(normalised, test)))
    assert_nothing_is_near(prepare(settings()), test)


def test_a_near_duplicate_of_a_pair_does_not_examine_the_judge(made: Path) -> None:
    before = prepare(settings())
    pair = next(row for row in before.tables["preferences"] if row["split"] == "validation")
    test = rows_of(made / "test.jsonl")
    positive = [row for row in test if row["label"] == 1][:1]
    near = {"text": f"Indeed. {pair['prompt']}{pair['chosen']}", "label": 1}
    write(made / "test.jsonl", [row for row in test if row not in positive] + [near])
    after = prepare(settings(labelled_held_out=100))  # all of them
    texts = {row["text"] for row in after.tables["labelled"] if row["split"] == "test"}
    assert texts == {row["text"] for row in test if row not in positive}
    assert after.metrics["dropped"]["labelled"] == 1


@pytest.mark.parametrize("held_out", ["validation", "test"])
@pytest.mark.parametrize("table", ["corpus_texts", "sft_rows", "pairs", "labelled_texts"])
def test_a_near_duplicate_of_a_held_out_text_trains_nothing(made: Path, table: str, held_out: str) -> None:
    original = next(row["text"] for row in rows_of(made / "test.jsonl") if row["label"] == 1)
    if held_out == "validation":
        texts = (row["text"] for row in rows_of(made / "train.jsonl") if row["label"] == 1)
        original = next(text for text in texts if split_of(text, 0.1, 0.0) == "validation" and place_of(text, "judge/") >= 0.5)
    near = first_in_line(table, "train", lambda number: f"{number} {original}")
    write(made / "train.jsonl", [*rows_of(made / "train.jsonl"), {"text": near, "label": 1}])
    after = prepare(settings())
    for name, rows in after.tables.items():
        assert not [row for row in rows if near in (row.get("text"), row.get("prompt", "") + row.get("response", ""))], name
    assert near not in sides_of(after.tables["preferences"])
    name = {"corpus_texts": "corpus", "sft_rows": "sft", "pairs": "preferences", "labelled_texts": "labelled"}[table]
    assert after.metrics["dropped"][name] == (2 if name == "sft" else 1), "demonstrations go in twos"
    assert Counter(row["label"] for row in after.tables["sft"]).keys() == {0, 1}
    assert len(set(Counter(row["label"] for row in after.tables["sft"]).values())) == 1


@pytest.mark.parametrize("split", ["train", "validation"])
def test_what_the_judge_learns_from_is_not_nearly_a_pair(made: Path, split: str) -> None:
    pair = next(row for row in prepare(settings()).tables["preferences"] if row["split"] == split)
    near = first_in_line("labelled_texts", "train", lambda number: f"{pair['prompt']}{pair['chosen']} {number}.")
    write(made / "train.jsonl", [*rows_of(made / "train.jsonl"), {"text": near, "label": 1}])
    after = prepare(settings())
    assert near not in {row["text"] for row in after.tables["labelled"]}
    assert after.metrics["dropped"]["labelled"] == 1


def first_in_line(table: str, split: str, write: Callable[[int], str]) -> str:
    """A text of `split` and of the half that `table` is made from, before every other in the order in which it takes them."""
    judges, data = table == "labelled_texts", settings()
    texts = [text for text in map(write, range(20_000)) if (place_of(text, "judge/") < 0.5) == judges]

    def place(text: str) -> bytes:
        lot = " ".join(text.split()[: data.prompt_words]) if table.startswith("prompts") else text
        return place_in_line(digest_of(lot), table, data)

    return min((text for text in texts if split_of(text, 0.1, 0.0) == split), key=place)


@pytest.mark.parametrize("table", ["corpus_texts", "sft_rows", "pairs", "prompts_train"])
def test_a_new_text_takes_one_place(made: Path, table: str) -> None:
    before = prepare(settings()).tables
    new = first_in_line(table, "train", lambda number: f"{number} wholly new texts stand first.")
    write(made / "train.jsonl", [{"text": new, "label": 1}, *rows_of(made / "train.jsonl")])
    after = prepare(settings()).tables
    lost = {}
    for name in before:
        # A new text may give the texts of pairs other partners, so these are compared text by text.
        old, now = (
            Counter(sides_of(tables[name]) if name == "preferences" else [str(row) for row in tables[name]])
            for tables in (before, after)
        )
        lost[name] = sum((old - now).values())
    taken = {"corpus_texts": "corpus", "sft_rows": "sft", "pairs": "preferences", "prompts_train": "prompts"}[table]
    assert lost[taken] == 1
    assert all(count <= 1 for count in lost.values()), lost


def test_nobody_turns_the_pairs_of_brought_labels_round(made: Path) -> None:
    straight = prepare(settings(pairs=60, pairs_held_out=6))
    assert prepare(settings(pairs=60, pairs_held_out=6, disagreement=0.4)).tables == straight.tables
    turned = prepare(settings(pairs=60, pairs_held_out=6, flipped_pairs=0.4))
    both = list(zip(straight.tables["preferences"], turned.tables["preferences"], strict=True))
    swapped = [a["chosen"] == b["rejected"] and a["rejected"] == b["chosen"] for a, b in both]
    assert all(a == b for (a, b), swaps in zip(both, swapped, strict=True) if not swaps)
    assert 12 <= sum(swapped) <= 36  # of 60, binomial at 0.4: outside with probability below 0.001
    assert not any(swaps for (a, _), swaps in zip(both, swapped, strict=True) if a["split"] != "train")
    assert turned.metrics["pairs"]["flipped"] == sum(swapped)
    assert straight.metrics["pairs"]["flipped"] == 0


def test_what_is_exchanged_is_counted_in_the_table_as_it_ends(made: Path) -> None:
    rows = rows_of(made / "train.jsonl")
    write(made / "train.jsonl", rows + [{**row, "text": f"{row['text']} So."} for row in rows_of(made / "test.jsonl")])
    asked = {"pairs": 0.9, "pairs_held_out": 2, "prompts_test": 4}
    tables = [prepare(settings(**asked, flipped_pairs=share)) for share in (0.0, 0.4)]
    assert tables[1].metrics["dropped"]["preferences"] > 0
    sides = [{row["prompt"] + row["chosen"] for row in one.tables["preferences"]} for one in tables]
    assert tables[1].metrics["pairs"]["flipped"] == len(sides[0] - sides[1])


def test_only_training_pairs_of_the_grammar_have_annotators_who_err() -> None:
    sizes = dict.fromkeys(("corpus_texts", "sft_rows", "labelled_texts", "labelled_held_out", "prompts_train"), 20)
    data = settings(**sizes, source="synthetic", pairs=200, pairs_held_out=50, disagreement=0.3)
    prepared = prepare(data)
    wrong = Counter(
        row["split"] for row in prepared.tables["preferences"] if polarity_of(row["prompt"] + row["chosen"]) == NEGATIVE
    )
    assert wrong["validation"] == 0
    assert 30 <= wrong["train"] == prepared.metrics["pairs"]["flipped"] <= 90


@pytest.mark.parametrize("kind", [float, bool])
def test_labels_of_other_types_are_written_as_numbers(made: Path, kind: Callable[[int], object]) -> None:
    before = prepare(settings())
    for name in ("train", "test"):
        write(made / f"{name}.jsonl", [{**row, "label": kind(row["label"])} for row in rows_of(made / f"{name}.jsonl")])
    after = prepare(settings())
    assert after.tables == before.tables
    assert {type(row["label"]) for row in after.tables["labelled"] + after.tables["sft"]} == {int}


def test_without_a_test_file_a_hash_decides(made: Path) -> None:
    (made / "test.jsonl").unlink()
    prepared = prepare(settings())
    assert set(prepared.metrics["files"]) == {"made/train_jsonl"}
    assert {row["split"] for row in prepared.tables["prompts"]} == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("spoil", "changes", "said"),
    [
        (lambda folder: None, {"source": "data/raw/none"}, "data/raw/none is missing"),
        (lambda folder: None, {"pairs": 500}, "the settings ask for more than data/raw/made has: data.pairs asks for 500, "),
        (lambda folder: (folder / "train.jsonl").unlink(), {}, "data/raw/made contains no train.* (.jsonl, .json, .csv"),
        (
            lambda folder: (folder / "train.csv").write_text("text,label"),
            {},
            "contains train.csv and train.jsonl; keep one of them",
        ),
        (
            lambda folder: (folder / "old.jsonl").write_text("{}"),
            {},
            "data/raw/made/old.jsonl is no train.*, validation.* or test.*",
        ),
        (
            lambda folder: (folder / "train.2.csv").write_text("a"),
            {},
            "data/raw/made/train.2.csv is no train.*, validation.* or test.*",
        ),
        (
            lambda folder: (folder / "test.json").mkdir(),
            {},
            "data/raw/made contains test.json and test.jsonl",
        ),
        (
            lambda folder: None,
            {"prompts_test": 500, "sft_rows": 1000, "labelled_held_out": 900},
            "data.labelled_held_out asks for 900, 100 would fit; data.prompts_test asks for 500, 67 would fit; data.sft_rows",
        ),
        (lambda folder: (folder / "test.jsonl.xz").write_text("a"), {}, "data/raw/made/test.jsonl.xz is none of .jsonl, .json"),
        (lambda folder: (folder / "train.jsonl").write_text("\n"), {}, "data/raw/made/train.jsonl: holds no rows"),
        (lambda folder: None, {"prompts_test": 500}, "data.prompts_test asks for 500, 67 would fit"),
        (
            lambda folder: (folder / "train.jsonl").write_text(""),
            {},
            "data/raw/made/train.jsonl cannot be read: ",
        ),
        (
            lambda folder: write(folder / "train.jsonl", [{"text": "It was a good film.", "label": "fine"}]),
            {},
            "data/raw/made/train.jsonl: the labels are 'fine' (1x)",
        ),
        (
            lambda folder: write(folder / "train.jsonl", [{"text": "It was a good film.", "label": None}] * 3),
            {},
            "data/raw/made/train.jsonl: no row can be used: 3 of 3 rows are rejected; 3 of 3: no label (row 1: no label)",
        ),
        (lambda folder: [file.unlink() for file in folder.iterdir()], {}, "data/raw/made contains no train.*"),
        (
            lambda folder: (folder / "train.jsonl").write_text('{"text": "a", "lab'),
            {},
            "data/raw/made/train.jsonl, line 1: not JSON: Unterminated string",
        ),
        (
            lambda folder: [(folder / f"{name}.jsonl").write_text('{"said": "a"}\n') for name in ("train", "test")],
            {},
            "data/raw/made/train.jsonl: its columns (said)",
        ),
    ],
)
def test_a_source_that_cannot_be_used_is_refused(
    made: Path, capfd: pytest.CaptureFixture[str], spoil: Callable[[Path], object], changes: dict[str, Any], said: str
) -> None:
    spoil(made)
    with pytest.raises(StageError) as error:
        prepare(settings(**changes))
    assert said in str(error.value)
    assert len(str(error.value).splitlines()) == 1
    assert capfd.readouterr() == ("", ""), "the libraries say nothing beside it"


def test_other_columns_and_files_do_no_harm(made: Path) -> None:
    before = prepare(settings())
    write(made / "test.jsonl", [{"id": n, **row, "stars": 3} for n, row in enumerate(rows_of(made / "test.jsonl"))])
    (made / "README.md").write_text("---\nconfigs: none\n---\n")
    assert prepare(settings()).tables == before.tables


@pytest.mark.thorough
@pytest.mark.skipif(not (SHARED / "data/imdb").is_dir(), reason="needs the IMDB files of ../shared (or RLHF_SHARED)")
def test_the_real_reviews_are_accounted_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """25,000 + 25,000 reviews; 96 + 199 are repeated to the letter, 2 + 2 more but for white space; 123 are in both."""
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw/imdb").symlink_to(SHARED / "data/imdb")
    monkeypatch.chdir(tmp_path)
    prepared = prepare(settings(source="data/raw/imdb", prompt_words=6, labelled_texts=1000, labelled_held_out=1000, pairs=500))
    assert prepared.metrics["files"] == {
        "imdb/train_jsonl_gz": dict(zip(NAMES, (25000, 24902, 0, 98, 0), strict=True)),
        "imdb/test_jsonl_gz": dict(zip(NAMES, (25000, 24674, 2, 201, 123), strict=True)),
    }
    assert len(prepared.dropped) == 98 + 2 + 201 + 123
    texts = [row["text"] for row in prepared.tables["labelled"] + prepared.tables["corpus"]]
    assert not [text for text in texts if "<br" in text or "  " in text]
    rows = {}
    for name in ("train", "test"):
        with gzip.open(SHARED / f"data/imdb/{name}.jsonl.gz") as lines:
            rows[name] = list(map(json.loads, lines))
    dropped = {row["row"] for row in prepared.dropped if "test" in row["file"]}  # the 123 stay in train
    test = [cleaned(row["text"]) for number, row in enumerate(rows["test"], start=1) if number not in dropped]
    assert len(test) == 24674
    assert_nothing_meets(prepared, {normalised(text) for text in test})
    validation = [cleaned(row["text"]) for row in rows["train"] if split_of(cleaned(row["text"]), 0.1, 0.0) == "validation"]
    assert_nothing_is_near(prepared, test + [text for text in validation if place_of(text, "judge/") >= 0.5])
