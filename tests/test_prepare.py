"""The stage `prepare`: the use of each row, the tables, and the separation of training data and held-out data."""

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

from .conftest import SHARED, assert_names, prepare_params, tiny_params, write_reviews
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
    """Write a folder data/raw/made of reviews with the grammar, 400 for training and 100 for test."""
    monkeypatch.chdir(tmp_path)
    write_reviews(tmp_path / "data/raw/made", train=400, test=100)
    return tmp_path / "data/raw/made"


def rows_of(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def write(file: Path, rows: list[Row]) -> int:
    return file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_each_row_is_kept_or_dropped_with_a_reason(made: Path) -> None:
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
    assert [fates["rows_kept"] for fates in before.figures["files"].values()] == [400, 100]
    assert after.figures["files"] == {
        "made/train_jsonl": dict(zip(NAMES, (408, 401, 5, 2, 0), strict=True)),
        "made/test_jsonl": dict(zip(NAMES, (102, 100, 0, 1, 1), strict=True)),
    }
    expected = [
        ("train", 401, ["duplicate"]),
        ("train", 402, ["duplicate", "other label"]),
        ("train", 403, ["no text"]),
        ("train", 404, ["3 words", "too few", "prompt of 3"]),
        ("train", 406, ["label is ['1']", "not a number"]),
        ("train", 407, ["no text"]),
        ("train", 408, ["no label"]),
        ("test", 101, ["duplicate"]),
        ("test", 102, ["overlap"]),
    ]
    assert [(row["file"], row["row"]) for row in after.dropped] == [
        (f"data/raw/made/{name}.jsonl", number) for name, number, _ in expected
    ]
    for row, (_, _, parts) in zip(after.dropped, expected, strict=True):
        assert_names(row["reason"], *parts)
    assert "other" not in after.dropped[0]["reason"], "its label is the same"


def test_the_tables_have_the_sizes_and_splits_of_the_settings(made: Path) -> None:
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


def assert_no_text_is_shared(prepared: Prepared, test: set[str]) -> None:
    """Assert that training data has no test text or opening of a test prompt, and shares no text with the judge's."""
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


def assert_no_near_duplicates(prepared: Prepared, held_out: list[str], threshold: float = 0.6) -> None:
    """Assert that no training text is a near-duplicate of a held-out text."""
    rows = [row for name in ("corpus", "sft", "labelled") for row in prepared.tables[name] if row["split"] == "train"]
    trained = [row["text"] if "text" in row else row["prompt"] + row["response"] for row in rows]
    trained += sides_of([row for row in prepared.tables["preferences"] if row["split"] == "train"])
    assert largest_similarity(held_out, trained) < threshold


def test_training_data_shares_no_text_with_held_out_data(made: Path) -> None:
    test = [row["text"] for row in rows_of(made / "test.jsonl")]
    assert_no_text_is_shared(prepare(settings()), set(map(normalised, test)))
    assert_no_near_duplicates(prepare(settings()), test)


def test_a_near_duplicate_of_a_pair_is_not_a_test_text_of_the_judge(made: Path) -> None:
    before = prepare(settings())
    pair = next(row for row in before.tables["preferences"] if row["split"] == "validation")
    test = rows_of(made / "test.jsonl")
    positive = [row for row in test if row["label"] == 1][:1]
    near = {"text": f"Indeed. {pair['prompt']}{pair['chosen']}", "label": 1}
    write(made / "test.jsonl", [row for row in test if row not in positive] + [near])
    after = prepare(settings(labelled_held_out=100))  # all of them
    texts = {row["text"] for row in after.tables["labelled"] if row["split"] == "test"}
    assert texts == {row["text"] for row in test if row not in positive}
    assert after.figures["dropped"]["labelled"] == 1


@pytest.mark.parametrize("held_out", ["validation", "test"])
@pytest.mark.parametrize("table", ["corpus_texts", "sft_rows", "pairs", "labelled_texts"])
def test_a_near_duplicate_of_a_held_out_text_is_in_no_training_data(made: Path, table: str, held_out: str) -> None:
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
    assert after.figures["dropped"][name] == (2 if name == "sft" else 1), "demonstrations are dropped in twos"
    assert Counter(row["label"] for row in after.tables["sft"]).keys() == {0, 1}
    assert len(set(Counter(row["label"] for row in after.tables["sft"]).values())) == 1


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_near_duplicate_of_a_pair_is_not_a_training_text_of_the_judge(made: Path, split: str) -> None:
    pair = next(row for row in prepare(settings()).tables["preferences"] if row["split"] == split)
    near = first_in_line("labelled_texts", "train", lambda number: f"{pair['prompt']}{pair['chosen']} {number}.")
    write(made / "train.jsonl", [*rows_of(made / "train.jsonl"), {"text": near, "label": 1}])
    after = prepare(settings())
    assert near not in {row["text"] for row in after.tables["labelled"]}
    assert after.figures["dropped"]["labelled"] == 1


def first_in_line(table: str, split: str, write: Callable[[int], str]) -> str:
    """Return the text of `split` that `table` takes first from its half of the texts."""
    judges, data = table == "labelled_texts", settings()
    texts = [text for text in map(write, range(20_000)) if (place_of(text, "judge/") < 0.5) == judges]

    def place(text: str) -> bytes:
        lot = " ".join(text.split()[: data.prompt_words]) if table.startswith("prompts") else text
        return place_in_line(digest_of(lot), table, data)

    return min((text for text in texts if split_of(text, 0.1, 0.0) == split), key=place)


@pytest.mark.parametrize("table", ["corpus_texts", "sft_rows", "pairs", "prompts_train"])
def test_a_new_text_replaces_at_most_one_text_of_a_table(made: Path, table: str) -> None:
    before = prepare(settings()).tables
    new = first_in_line(table, "train", lambda number: f"{number} wholly new texts come first.")
    write(made / "train.jsonl", [{"text": new, "label": 1}, *rows_of(made / "train.jsonl")])
    after = prepare(settings()).tables
    lost = {}
    for name in before:
        # A new text may change the partners in pairs, so the texts of pairs are compared one by one.
        old, now = (
            Counter(sides_of(tables[name]) if name == "preferences" else [str(row) for row in tables[name]])
            for tables in (before, after)
        )
        lost[name] = sum((old - now).values())
    taken = {"corpus_texts": "corpus", "sft_rows": "sft", "pairs": "preferences", "prompts_train": "prompts"}[table]
    assert lost[taken] == 1
    assert all(count <= 1 for count in lost.values()), lost


def test_only_flipped_pairs_exchanges_the_sides_of_pairs_from_labels(made: Path) -> None:
    straight = prepare(settings(pairs=60, pairs_held_out=6))
    assert prepare(settings(pairs=60, pairs_held_out=6, disagreement=0.4)).tables == straight.tables
    turned = prepare(settings(pairs=60, pairs_held_out=6, flipped_pairs=0.4))
    both = list(zip(straight.tables["preferences"], turned.tables["preferences"], strict=True))
    swapped = [a["chosen"] == b["rejected"] and a["rejected"] == b["chosen"] for a, b in both]
    assert all(a == b for (a, b), swaps in zip(both, swapped, strict=True) if not swaps)
    assert 12 <= sum(swapped) <= 36  # of 60, binomial at 0.4: outside with probability below 0.001
    assert not any(swaps for (a, _), swaps in zip(both, swapped, strict=True) if a["split"] != "train")
    assert turned.figures["pairs"]["flipped"] == sum(swapped)
    assert straight.figures["pairs"]["flipped"] == 0


def test_exchanged_pairs_are_counted_after_the_removal_of_leaks(made: Path) -> None:
    rows = rows_of(made / "train.jsonl")
    write(made / "train.jsonl", rows + [{**row, "text": f"{row['text']} So."} for row in rows_of(made / "test.jsonl")])
    asked = {"pairs": 0.9, "pairs_held_out": 2, "prompts_test": 4}
    tables = [prepare(settings(**asked, flipped_pairs=share)) for share in (0.0, 0.4)]
    assert tables[1].figures["dropped"]["preferences"] > 0
    sides = [{row["prompt"] + row["chosen"] for row in one.tables["preferences"]} for one in tables]
    assert tables[1].figures["pairs"]["flipped"] == len(sides[0] - sides[1])


def test_only_training_pairs_of_the_grammar_have_label_noise() -> None:
    sizes = dict.fromkeys(("corpus_texts", "sft_rows", "labelled_texts", "labelled_held_out", "prompts_train"), 20)
    data = settings(**sizes, source="synthetic", pairs=200, pairs_held_out=50, disagreement=0.3)
    prepared = prepare(data)
    wrong = Counter(
        row["split"] for row in prepared.tables["preferences"] if polarity_of(row["prompt"] + row["chosen"]) == NEGATIVE
    )
    assert wrong["validation"] == 0
    assert 30 <= wrong["train"] == prepared.figures["pairs"]["flipped"] <= 90


@pytest.mark.parametrize("kind", [float, bool])
def test_labels_of_other_types_are_written_as_numbers(made: Path, kind: Callable[[int], object]) -> None:
    before = prepare(settings())
    for name in ("train", "test"):
        write(made / f"{name}.jsonl", [{**row, "label": kind(row["label"])} for row in rows_of(made / f"{name}.jsonl")])
    after = prepare(settings())
    assert after.tables == before.tables
    assert {type(row["label"]) for row in after.tables["labelled"] + after.tables["sft"]} == {int}


def test_without_a_test_file_a_hash_assigns_the_splits(made: Path) -> None:
    (made / "test.jsonl").unlink()
    prepared = prepare(settings())
    assert set(prepared.figures["files"]) == {"made/train_jsonl"}
    assert {row["split"] for row in prepared.tables["prompts"]} == {"train", "validation", "test"}


@pytest.mark.parametrize(
    ("spoil", "changes", "parts"),
    [
        (lambda folder: None, {"source": "data/raw/none"}, ["data/raw/none", "missing", "data.source"]),
        (lambda folder: None, {"pairs": 500}, ["more rows than data/raw/made has", "data.pairs is 500", "at most 66"]),
        (lambda folder: (folder / "train.jsonl").unlink(), {}, ["data/raw/made contains no train.*", ".jsonl, .json, .csv"]),
        (
            lambda folder: (folder / "train.csv").write_text("text,label"),
            {},
            ["data/raw/made contains", "train.csv", "train.jsonl", "keep one"],
        ),
        (
            lambda folder: (folder / "old.jsonl").write_text("{}"),
            {},
            ["data/raw/made/old.jsonl", "not train.*", "rename"],
        ),
        (
            lambda folder: (folder / "train.2.csv").write_text("a"),
            {},
            ["data/raw/made/train.2.csv", "not train.*", "rename"],
        ),
        (
            lambda folder: (folder / "test.json").mkdir(),
            {},
            ["data/raw/made contains", "test.json and test.jsonl", "keep one"],
        ),
        (
            lambda folder: None,
            {"prompts_test": 500, "sft_rows": 1000, "labelled_held_out": 900},
            ["data.labelled_held_out is 900", "at most 100", "data.prompts_test is 500", "at most 67", "data.sft_rows is 1000"],
        ),
        (
            lambda folder: (folder / "test.jsonl.xz").write_text("a"),
            {},
            ["data/raw/made/test.jsonl.xz", "unknown ending", ".jsonl, .json"],
        ),
        (lambda folder: (folder / "train.jsonl").write_text("\n"), {}, ["data/raw/made/train.jsonl", "no rows"]),
        (lambda folder: None, {"prompts_test": 500}, ["data.prompts_test is 500", "at most 67"]),
        (
            lambda folder: (folder / "train.jsonl").write_text(""),
            {},
            ["data/raw/made/train.jsonl", "cannot be read", "empty"],
        ),
        (
            lambda folder: write(folder / "train.jsonl", [{"text": "It was a good film.", "label": "fine"}]),
            {},
            ["data/raw/made/train.jsonl", "labels", "'fine' (1x)"],
        ),
        (
            lambda folder: write(folder / "train.jsonl", [{"text": "It was a good film.", "label": None}] * 3),
            {},
            ["data/raw/made/train.jsonl", "3 of 3 rows are rejected", "3 of 3: no label", "row 1: no label"],
        ),
        (lambda folder: [file.unlink() for file in folder.iterdir()], {}, ["data/raw/made contains no train.*"]),
        (
            lambda folder: (folder / "train.jsonl").write_text('{"text": "a", "lab'),
            {},
            ["data/raw/made/train.jsonl, line 1", "not JSON", "Unterminated"],
        ),
        (
            lambda folder: [(folder / f"{name}.jsonl").write_text('{"said": "a"}\n') for name in ("train", "test")],
            {},
            ["data/raw/made/train.jsonl", "columns are said", "data.source"],
        ),
    ],
)
def test_a_source_that_cannot_be_used_is_refused(
    made: Path, capfd: pytest.CaptureFixture[str], spoil: Callable[[Path], object], changes: dict[str, Any], parts: list[str]
) -> None:
    spoil(made)
    with pytest.raises(StageError) as error:
        prepare(settings(**changes))
    assert_names(error.value, *parts)
    assert len(str(error.value).splitlines()) == 1
    assert capfd.readouterr() == ("", ""), "the libraries print nothing"


def test_unknown_columns_and_a_readme_change_nothing(made: Path) -> None:
    before = prepare(settings())
    write(made / "test.jsonl", [{"id": n, **row, "stars": 3} for n, row in enumerate(rows_of(made / "test.jsonl"))])
    (made / "README.md").write_text("---\nconfigs: none\n---\n")
    assert prepare(settings()).tables == before.tables


@pytest.mark.thorough
@pytest.mark.skipif(not (SHARED / "data/imdb").is_dir(), reason="needs the IMDB files of ../shared (or RLHF_SHARED)")
def test_each_imdb_review_is_kept_or_dropped_as_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 25,000 + 25,000 reviews, 96 + 199 are exact repeats, 2 + 2 differ only in white space, and 123 are in both."""
    (tmp_path / "data/raw").mkdir(parents=True)
    (tmp_path / "data/raw/imdb").symlink_to(SHARED / "data/imdb")
    monkeypatch.chdir(tmp_path)
    prepared = prepare(settings(source="data/raw/imdb", prompt_words=6, labelled_texts=1000, labelled_held_out=1000, pairs=500))
    assert prepared.figures["files"] == {
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
    assert_no_text_is_shared(prepared, {normalised(text) for text in test})
    validation = [cleaned(row["text"]) for row in rows["train"] if split_of(cleaned(row["text"]), 0.1, 0.0) == "validation"]
    assert_no_near_duplicates(prepared, test + [text for text in validation if place_of(text, "judge/") >= 0.5])
