"""Sources in the stage `prepare`: shapes of preferences, separate texts, the hub, and the command line."""

import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import Dataset

import prepare as stage
from prepare import Prepared
from rlhf_sentiment.data import grammar
from rlhf_sentiment.data.card import card
from rlhf_sentiment.data.files import files_at
from rlhf_sentiment.data.intake import Intake
from rlhf_sentiment.data.leaks import texts_of
from rlhf_sentiment.data.pairs import about_pairs, pairs_of_dataset
from rlhf_sentiment.data.shapes import PREFERENCES
from rlhf_sentiment.data.text import normalised
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.records import Row
from rlhf_sentiment.settings.data import DataSettings

from .conftest import (
    ROOT,
    SHARED,
    RunStage,
    World,
    assert_names,
    checkout,
    prepare_params,
    the_error,
    tiny_params,
    write_reviews,
)
from .similar import largest_similarity

SMALL = {
    "source": "data/raw/pairs.jsonl",
    "corpus_texts": 20,
    "sft_rows": 20,
    "pairs": 40,
    "pairs_held_out": 2,
    "labelled_texts": 40,
    "labelled_held_out": 10,
    "prompts_train": 20,
    "prompts_validation": 4,
    "prompts_test": 4,
}


def settings(**changes: Any) -> DataSettings:
    return DataSettings(**(tiny_params()["data"] | SMALL | changes))


def prepare(judge: str = "synthetic", **changes: Any) -> Prepared:
    return stage.prepare(prepare_params(settings(**changes), judge))


@pytest.fixture(autouse=True)
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder data/raw in a new current folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)
    return tmp_path / "data/raw"


def pairs(count: int) -> list[Row]:
    """Return rows of the grammar with different prompts, each with a positive and a negative response."""
    rng = random.Random(3)
    rows: dict[str, Row] = {}
    while len(rows) < count:
        prompt, rule = grammar.write_prompt(rng)
        chosen, rejected = (grammar.write_response(rule, polarity, rng) for polarity in (grammar.POSITIVE, grammar.NEGATIVE))
        rows.setdefault(normalised(prompt), {"prompt": prompt, "chosen": chosen, "rejected": rejected})
    return list(rows.values())


def write(file: Path, rows: list[Row]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def talk(row: Row) -> Row:
    start = f"\n\nHuman: {row['prompt']}\n\nAssistant:"
    return {side: start + " " + row[side].strip() for side in ("chosen", "rejected")}


def vote(row: Row, number: int) -> Row:
    sides = [row["chosen"], row["rejected"]][:: (1, -1)[number % 2]]
    return {"prompt": row["prompt"], "response_a": sides[0], "response_b": sides[1], "preference": "ab"[number % 2]}


SHAPES: dict[str, Callable[[Row, int], Row]] = {
    "preferences": lambda row, _: row,
    "transcripts": lambda row, _: talk(row),
    "votes": vote,
    "completions": lambda row, _: {
        "prompt": row["prompt"],
        "completions": [row["rejected"], row["chosen"]],
        "scores": [2, 4],
    },
}


def kind_of(row: Row) -> str:
    """Return the first word of the reason for which a row was dropped."""
    return re.split(r"\W", row["reason"])[0]


@pytest.mark.parametrize("shape", SHAPES)
def test_preferences_become_the_same_tables_in_each_shape(raw: Path, shape: str) -> None:
    rows = pairs(120)
    write(raw / "pairs.jsonl", [SHAPES[shape](row, number) for number, row in enumerate(rows)])
    prepared = prepare()
    assert prepared.figures["shape"] == shape
    assert prepared.figures["files"]["pairs_jsonl"] == {
        "rows_read": 120,
        "rows_kept": 120,
        "rows_rejected": 0,
        "duplicates_dropped": 0,
        "overlap_dropped": 0,
        "ties": 0,
    }
    asked = {f"\n\nHuman: {row['prompt']}\n\nAssistant:" if shape == "transcripts" else row["prompt"]: row for row in rows}
    found = prepared.tables["preferences"]
    assert Counter(row["split"] for row in found)["validation"] == 2
    assert len(found) == 42 - prepared.figures["dropped"]["preferences"] > 35
    for row in found:
        for side in ("chosen", "rejected"):
            assert row[side].strip() == asked[row["prompt"]][side].strip()
    sides = Counter(row["response"].strip() == asked[row["prompt"]]["chosen"].strip() for row in prepared.tables["sft"])
    assert sides[True] == sides[False] > 8, "half of the demonstrations are rejected responses: balanced"
    split = {row["prompt"]: row["split"] for row in prepared.tables["prompts"]}
    for row in found + prepared.tables["sft"]:
        assert split.get(row["prompt"], row["split"]) == row["split"], "a prompt is in one split"


def test_demonstrations_can_be_the_chosen_ones(raw: Path) -> None:
    rows = pairs(120)
    write(raw / "pairs.jsonl", rows)
    chosen = {row["chosen"].strip() for row in rows}
    assert {row["response"].strip() in chosen for row in prepare(sft_from="chosen").tables["sft"]} == {True}


def test_each_row_of_preferences_has_one_fate(raw: Path) -> None:
    rows = pairs(120)
    train = [
        *rows[:100],
        {**rows[0], "prompt": rows[0]["prompt"].upper()},
        {**rows[1], "chosen": rows[1]["rejected"], "rejected": rows[1]["chosen"]},
        {**rows[2], "chosen": rows[2]["rejected"]},
        {**rows[3], "rejected": ""},
    ]
    test = [*rows[100:], {**rows[4], "chosen": "something else"}]
    write(raw / "own/train.jsonl", train)
    write(raw / "own/test.jsonl", test)
    prepared = prepare(source="data/raw/own")
    assert [list(fates.values()) for name, fates in prepared.figures["files"].items() if name != "grammar"] == [
        [104, 100, 2, 2, 0, 0],
        [21, 20, 0, 0, 1, 0],
    ]
    assert [(row["row"], kind_of(row)) for row in prepared.dropped if row["file"] != "grammar"] == [
        (101, "duplicate"),
        (102, "duplicate"),
        (103, "chosen"),
        (104, "no"),
        (21, "overlap"),
    ]
    assert {row["split"] for row in prepared.tables["prompts"]} == {"train", "validation", "test"}
    own_test = {row["prompt"] for row in rows[100:]}
    assert {row["prompt"] for row in prepared.tables["prompts"] if row["split"] == "test"} <= own_test


def test_the_votes_of_several_annotators_are_counted(raw: Path) -> None:
    rows = [vote(row, 0) for row in pairs(120)]
    turned = {**rows[0], "response_a": rows[0]["response_b"], "response_b": rows[0]["response_a"], "preference": "a"}
    tied = [{**rows[1], "preference": "tie"}, {**rows[2], "preference": ["a", "b"]}, {**rows[3], "preference": "b"}]
    # The first pair: one vote for its first response, then two for its second. The second: a tie changes nothing.
    write(raw / "pairs.jsonl", [*rows[:2], tied[1], rows[3], *rows[4:], turned, turned, tied[0], tied[2]])
    prepared = prepare(pairs=80, pairs_held_out=1, prompts_train=2, prompts_validation=1, prompts_test=2, near_duplicate=1.0)
    assert list(prepared.figures["files"]["pairs_jsonl"].values()) == [124, 118, 2, 4, 0, 2]
    votes = [row["reason"] for row in prepared.dropped if kind_of(row) == "duplicate"]
    assert len([reason for reason in votes if "row 1," in reason]) == 2
    source = Intake(files_at("data/raw/pairs.jsonl", "data.source"), ("votes",), settings(), "data.source", 6, 0.0)
    first, second = source.record(0), source.record(1)
    assert first.responses[first.scores.index(max(first.scores))].strip() == rows[0]["response_b"].strip()
    assert second.responses[second.scores.index(max(second.scores))].strip() == rows[1]["response_a"].strip()


def test_ranked_completions_make_pairs_up_to_max_uses(raw: Path) -> None:
    rows = [
        {
            "prompt": row["prompt"],
            "completions": [f"{number} {word}" for word in ("one", "two", "three", "four")],
            "ranks": [1, 2, 2, 4],
        }
        for number, row in enumerate(pairs(120))
    ]
    write(raw / "pairs.jsonl", rows)
    once = prepare(pairs=90, pairs_held_out=8).tables["preferences"]
    assert {(row["chosen"].split()[1], row["rejected"].split()[1]) for row in once} == {("one", "four")}
    thrice = prepare(pairs=90, pairs_held_out=8, max_uses=3).tables["preferences"]
    kinds = Counter((row["chosen"].split()[1], row["rejected"].split()[1]) for row in thrice)
    assert kinds.keys() == {("one", "four"), ("one", "two"), ("one", "three"), ("two", "four"), ("three", "four")}
    uses = Counter(row["prompt"] + row[side] for row in thrice for side in ("chosen", "rejected"))
    assert max(uses.values()) == 3


def test_a_source_without_labels_needs_a_judge_from_elsewhere(raw: Path) -> None:
    write(raw / "pairs.jsonl", pairs(120))
    with pytest.raises(StageError) as error:
        prepare(judge="data")
    assert_names(error.value, "data/raw/pairs.jsonl", "preferences", "judge.source")
    write_reviews(raw / "reviews", train=300, test=60)
    prepared = prepare(judge="data/raw/reviews")
    assert list(prepared.figures["files"]) == ["pairs_jsonl", "reviews/train_jsonl", "reviews/test_jsonl"]
    assert prepared.figures["judge_source"] == "data/raw/reviews"
    known = {json.loads(line)["text"]: split for split in ("train", "test") for line in (raw / f"reviews/{split}.jsonl").open()}
    assert {known[row["text"]] == row["split"] for row in prepared.tables["labelled"]} == {True}
    paired = [row["prompt"] + row[side] for row in prepared.tables["preferences"] for side in ("chosen", "rejected")]
    assert largest_similarity([row["text"] for row in prepared.tables["labelled"]], paired) < 0.6


def test_the_corpus_and_the_prompts_can_come_from_elsewhere(raw: Path) -> None:
    write_reviews(raw / "reviews", train=400, test=80)
    write(raw / "asked/train.jsonl", [{"prompt": f"In town {number} they show a film that"} for number in range(30)])
    (raw / "asked/test.txt").write_text("Nobody\nOnce more\nAt noon\nNever")
    (raw / "corpus.txt").write_text("\n".join(f"Line {number} of a book about number {number}." for number in range(400)))
    elsewhere: dict[str, Any] = {"corpus": "data/raw/corpus.txt", "corpus_texts": 300, "prompts": "data/raw/asked"}
    prepared = prepare("data", source="data/raw/reviews", **elsewhere, prompts_validation=1)
    assert {row["text"].split()[0] for row in prepared.tables["corpus"]} == {"Line"}
    assert len(prepared.tables["corpus"]) == 300, "more than the source has: it need not have them"
    asked = {row["prompt"] for row in prepared.tables["prompts"] if row["split"] == "test"}
    assert asked == {"Nobody", "Once more", "At noon", "Never"}
    assert {row["prompt"].split()[0] for row in prepared.tables["prompts"] if row["split"] != "test"} == {"In"}
    assert set(prepared.figures["files"]) >= {"corpus_txt", "asked/train_jsonl", "asked/test_txt"}


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_held_out_prompt_from_elsewhere_opens_nothing_that_trains(raw: Path, split: str) -> None:
    write_reviews(raw / "reviews", train=400, test=80)
    rows = [json.loads(line) for line in (raw / "reviews/train.jsonl").open()]
    for number, row in enumerate(rows[:200]):
        row["text"] = f"On Monday {number} {row['text']}"
    write(raw / "reviews/train.jsonl", rows)
    write(raw / "asked/train.jsonl", [{"prompt": f"In town {number}"} for number in range(30)])
    (raw / "asked" / f"{split}.txt").write_text("ON  monday\nOnce\nTwice\nNever")
    (raw / "asked" / f"{'test' if split == 'validation' else 'validation'}.txt").write_text("Thrice\nSeldom\nOften\nHardly")
    prepared = prepare("data", source="data/raw/reviews", prompts="data/raw/asked", prompts_validation=4)
    for name in ("corpus", "sft", "preferences", "labelled"):
        texts = [text for row in prepared.tables[name] if row["split"] == "train" for text in texts_of(row)]
        opened = [text for text in texts if normalised(text).startswith("on monday ")]
        assert bool(opened) == (name == "labelled" and split == "validation"), name
    assert len(set(Counter(row["label"] for row in prepared.tables["sft"]).values())) == 1


def test_the_first_turn_of_a_talk_is_not_a_held_out_prompt(raw: Path) -> None:
    short = [talk(row) for row in pairs(200)]
    # Each conversation continues. Its first turn is the prompt of a row above.
    rows = short + [
        {
            side: f"{row['chosen']}\n\nHuman: And number {number}?\n\nAssistant: {side} {number}"
            for side in ("chosen", "rejected")
        }
        for number, row in enumerate(short)
    ]
    write(raw / "pairs.jsonl", rows)
    prepared = prepare(prompts_test=20, prompts_validation=10, pairs=150)
    held_out = [row["prompt"] for row in prepared.tables["prompts"] if row["split"] != "train"]
    trained = [row["prompt"] for name in ("sft", "preferences") for row in prepared.tables[name] if row["split"] == "train"]
    assert len(held_out) == 30
    assert not [prompt for prompt in trained for other in held_out if prompt.startswith(other)]


def test_rows_of_a_prompt_stay_together(raw: Path) -> None:
    rows = [{**row, "chosen": f"{row['chosen']} {n}"} for row in pairs(150) for n in range(3)]
    write(raw / "pairs.jsonl", rows)
    source = Intake(files_at("data/raw/pairs.jsonl", "data.source"), PREFERENCES, settings(), "data.source", 6, 0.0)
    assert set(source.table.groupby("prompt")["split"].nunique()) == {1}
    assert set(source.table["split"]) == {"train", "validation", "test"}


def test_a_stray_row_does_not_decide_the_shape(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_reviews(raw / "reviews", train=300, test=60)
    rows = [json.loads(line) for line in (raw / "reviews/train.jsonl").open()]
    stray = {"prompt": "It", "chosen": "is good", "rejected": "is bad"}
    late = [{"text": row["text"], "rating": 9 * row["label"]} for row in rows[200:]]
    write(raw / "reviews/train.jsonl", [stray, *rows[:200], *late])
    prepared = prepare("data", source="data/raw/reviews")
    ((number, reason),) = [(row["row"], row["reason"]) for row in prepared.dropped]
    assert number == 1
    assert_names(reason, "text")
    assert capsys.readouterr().err == ""


def test_many_rejected_rows_are_warned_of_by_kind(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_reviews(raw / "reviews", train=400, test=60)
    rows = [json.loads(line) for line in (raw / "reviews/train.jsonl").open()]
    rows = [{"text": row["text"], "rating": 9 * row["label"]} for row in rows]
    rows += [
        {"text": f"Text {n} of a middling sort, neither this nor that.", "rating": 4.5 + n % 200 / 100} for n in range(1200)
    ]
    rows += [{"text": f"Text {n} of no sort, neither this nor that.", "rating": ["?"]} for n in range(100)]
    rows += [{"text": "Short " + "x" * n, "rating": 1} for n in range(30)]
    write(raw / "reviews/train.jsonl", rows)
    prepared = prepare("data", source="data/raw/reviews")
    (warning,) = capsys.readouterr().err.splitlines()
    assert_names(
        warning, "warning", "data/raw/reviews/train.jsonl", "1,330 of 1,730", "1,200 of 1,330", "100 of 1,330", "rating"
    )
    assert "30 of 1,330" not in warning.replace("1,330 of", ""), "the third kind is some 2 % of them"
    reasons = [row["reason"] for row in prepared.dropped]
    assert_names(reasons[0], "rating", "4.5", "4", "7")
    assert_names(reasons[-1], "2 words", "prompt", "6")


def test_labels_that_are_not_two_classes_stop_before_any_work(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_reviews(raw / "reviews", train=300, test=60)
    rows = [json.loads(line) for line in (raw / "reviews/train.jsonl").open()]
    write(raw / "reviews/train.jsonl", [{**row, "label": 2 * row["label"]} for row in rows[:200]] + [{**rows[200], "label": 1}])
    monkeypatch.setattr(stage, "from_labels", None)
    with pytest.raises(StageError) as error:
        prepare("data", source="data/raw/reviews")
    assert_names(error.value, "train.jsonl", "0 (100x)", "1 (1x)", "2 (100x)", "data.labels: {negative: ")


def test_labels_can_be_given_a_meaning_and_the_rest_is_left_out(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_reviews(raw / "reviews", train=300, test=60)
    for name in ("train", "test"):
        rows = [json.loads(line) for line in (raw / f"reviews/{name}.jsonl").open()]
        neutral = [{"text": f"Text {n} of a middling sort, neither this nor that.", "label": 1} for n in range(9)]
        write(raw / f"reviews/{name}.jsonl", neutral + [{**row, "label": 2 * row["label"]} for row in rows])
    plain = prepare("data", source="data/raw/reviews", labels={"negative": [0], "positive": [2, 7]})
    warnings = capsys.readouterr().err.splitlines()
    expected = [("train.jsonl", "1 (9x)"), ("test.jsonl", "1 (9x)"), ("test.jsonl", "9 of 69"), ("7", "data.source")]
    for warning, parts in zip(warnings, expected, strict=True):
        assert_names(warning, "data.labels", *parts)
    (reason,) = {row["reason"] for row in plain.dropped}
    assert_names(reason, "label", "1", "data.labels")
    assert [fates["rows_rejected"] for fates in plain.figures["files"].values()] == [9, 9]


def test_votes_in_numbers_need_given_meanings(raw: Path) -> None:
    """PandaLM has a column for each annotator, with 0 for a tie, and 1 and 2 for the responses."""
    rows = [
        {
            "instruction": row["prompt"],
            "input": "In short." if number % 2 else "",
            "response1": row["rejected"],
            "response2": row["chosen"],
            **dict(zip(("annotator1", "annotator2", "annotator3"), said, strict=True)),
        }
        for number, (row, said) in enumerate(zip(pairs(120), [(2, 2, 1), (0, 2, 0), (2, 1, 0)] * 40, strict=True))
    ]
    write(raw / "pairs.jsonl", rows)
    meanings = {"a": [1], "b": [2], "tie": [0]}
    prepared = prepare(preference_values=meanings, pairs=60, prompts_train=10, prompts_validation=1, prompts_test=2)
    assert list(prepared.figures["files"]["pairs_jsonl"].values()) == [120, 80, 40, 0, 0, 40]
    asked = {f"{row['instruction']}\n\nIn short." if row["input"] else row["instruction"]: row for row in rows}
    assert {row["chosen"] == asked[row["prompt"]]["response2"] for row in prepared.tables["preferences"]} == {True}
    with pytest.raises(StageError) as error:
        prepare()
    assert_names(error.value, "pairs.jsonl", "0 (120x)", "1 (80x)", "2 (160x)", "data.preference_values")


def test_equal_scores_are_ties_and_make_no_pair(raw: Path) -> None:
    rows = pairs(120)
    scored = [{**row, "score_chosen": 8, "score_rejected": 6 + n % 4} for n, row in enumerate(rows)]
    write(raw / "pairs.jsonl", scored)
    prepared = prepare(pairs=30, pairs_held_out=1, prompts_train=10, prompts_validation=1, prompts_test=2)
    assert list(prepared.figures["files"]["pairs_jsonl"].values()) == [120, 60, 60, 0, 0, 30]
    reasons = Counter(row["reason"] for row in prepared.dropped if row["file"] != "grammar")
    assert sorted(reasons.values()) == [30, 30]
    for reason, scores in zip(sorted(reasons), ("8", "98"), strict=True):
        assert_names(reason, "chosen", "rejected", "score", *scores)
    said = card(prepared.tables, prepared.figures, settings())
    assert "| file | read | kept | rejected | duplicates | overlaps | ties |" in said
    assert r"| pairs\_jsonl | 120 | 60 | 60 | 0 | 0 | 30 |" in said
    ranked = [
        {"prompt": row["prompt"], "completions": [row["chosen"], row["rejected"], "so so"], "scores": [2, 1 + n % 2, 1 + n % 2]}
        for n, row in enumerate(rows)
    ]
    write(raw / "pairs.jsonl", ranked)
    prepared = prepare(pairs=40, pairs_held_out=1, max_uses=3, prompts_train=10, prompts_validation=1, prompts_test=2)
    assert list(prepared.figures["files"]["pairs_jsonl"].values()) == [120, 60, 60, 0, 0, 60]
    chosen = {row["prompt"]: row["chosen"] for row in rows}
    assert {row["chosen"] == chosen[row["prompt"]] for row in prepared.tables["preferences"]} == {True}


def test_a_file_of_ties_stops(raw: Path) -> None:
    write(raw / "pairs.jsonl", [{**vote(row, 0), "preference": "tie"} for row in pairs(30)])
    with pytest.raises(StageError) as error:
        prepare()
    assert_names(error.value, "pairs.jsonl", "30 of 30", "tie")


def test_files_with_like_names_are_counted_apart(raw: Path) -> None:
    write_reviews(raw / "a", train=300, test=60)
    for folder, rows in (("x.y", 0), ("x_y", 1)):
        (raw / folder).mkdir()
        lines = (raw / "a/train.jsonl").read_text().splitlines(keepends=True)
        (raw / folder / "train.jsonl").write_text("".join(lines[rows::2]))
    prepared = prepare("data", source="data/raw/x?y/*.jsonl")
    assert [fates["rows_read"] for fates in prepared.figures["files"].values()] == [150, 150]
    prepared = prepare("data", source="data/raw/a", corpus="data/raw/a/train.jsonl")
    assert list(prepared.figures["files"]) == ["a/train_jsonl", "a/test_jsonl", "a/train_jsonl as data_corpus"]


def test_tables_that_would_be_empty_are_an_error(raw: Path) -> None:
    same = "at the desk they answered every one of our many questions about the town and what there is to see in it"
    rows = [
        {"text": f"Hotel number {number} was {word}, and {same}.", "label": label}
        for number in range(300)
        for label, word in enumerate(("bad", "good"))
    ]
    write(raw / "reviews.jsonl", rows)
    with pytest.raises(StageError) as error:
        prepare("data", source="data/raw/reviews.jsonl", prompt_words=3)
    assert_names(error.value, "no row", "data.near_duplicate")


def test_texts_are_used_again_only_where_they_do_not_suffice(raw: Path) -> None:
    write_reviews(raw / "reviews", train=400, test=60)
    for asked, uses in ((60, 1), (150, 2)):
        prepared = prepare("data", source="data/raw/reviews", pairs=asked, max_uses=5, near_duplicate=1.0)
        train = [row for row in prepared.tables["preferences"] if row["split"] == "train"]
        counts = Counter(row["prompt"] + row[side] for row in train for side in ("chosen", "rejected"))
        assert max(counts.values()) == uses == prepared.figures["pairs"]["most_uses"]
        assert asked - 6 <= len(train) == prepared.figures["pairs"]["pairs"]
    with pytest.raises(StageError) as error:
        prepare("data", source="data/raw/reviews", pairs=150, max_uses=1)
    assert_names(error.value, "data.pairs", "150")


def test_what_is_said_of_pairs() -> None:
    def pair(prompt: str, chosen: int, rejected: int, split: str = "train") -> Row:
        return {"prompt": prompt, "chosen": " a" * chosen + f" {chosen}", "rejected": " b" * rejected, "split": split}

    # Words, the prompt's included: 4 against 2, 5 against 5 (one word of prompt), 3 against 9; ratios 2, 1, 3.
    rows = [pair("", 3, 2), pair("I", 3, 4), pair("", 2, 9), pair("", 50, 1, "validation")]
    about = {"pairs": 3, "most_uses": 1, "chosen_longer": 0.5, "length_ratio": 2.0, "shared_opening": 1}
    assert about_pairs(rows) == pytest.approx(about)


def test_long_prompts_are_left_out_and_counted(raw: Path) -> None:
    rows = pairs(120)
    write(raw / "pairs.jsonl", rows)
    short = sum(len(row["prompt"].split()) <= 14 for row in rows)
    prepared = prepare(max_prompt_words=14, prompts_train=5, prompts_validation=1, prompts_test=2)
    assert prepared.figures["prompts_too_long"] == 120 - short > 0
    assert max(len(row["prompt"].split()) for row in prepared.tables["prompts"]) <= 14


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({"text": "word " * 20_001, "label": 1}, ["100005", "data.max_characters", "100000"]),
        ({"text": "word " * 10_000_000, "label": 1}, ["line", "3200000", "data.max_characters"]),
        ({"id": 7, "text": "Another text with one and the same id.", "label": 1}, ["id 7"]),
        ({"text": "A text with a \0 in it.", "label": 1}, ["NUL"]),
        ({"text": "A text with half a \ud83d face.", "label": 1}, ["surrogate"]),
    ],
)
def test_a_faulty_row_is_rejected_and_the_others_stay(raw: Path, row: Row, parts: list[str]) -> None:
    write_reviews(raw / "reviews", train=300, test=60)
    rows = [{"id": number, **json.loads(line)} for number, line in enumerate((raw / "reviews/train.jsonl").open())]
    write(raw / "reviews/train.jsonl", [*rows, row])
    prepared = prepare(judge="data", source="data/raw/reviews")
    (dropped,) = prepared.dropped
    assert (dropped["file"], dropped["row"]) == ("data/raw/reviews/train.jsonl", 301)
    assert_names(dropped["reason"], *parts)
    assert prepared.figures["files"]["reviews/train_jsonl"]["rows_kept"] == 300


def test_the_column_of_ids_can_be_ignored(raw: Path) -> None:
    write_reviews(raw / "reviews", train=300, test=60)
    rows = [{"id": "all", **json.loads(line)} for line in (raw / "reviews/train.jsonl").open()]
    write(raw / "reviews/train.jsonl", rows)
    assert not prepare(judge="data", source="data/raw/reviews", columns={"id": None}).dropped
    # Blank ids do not count, and ids are compared exactly.
    write(raw / "reviews/train.jsonl", [{**row, "id": ["", f"a{n}", f"A{n - 1}"][n % 3]} for n, row in enumerate(rows)])
    assert not prepare(judge="data", source="data/raw/reviews").dropped


def test_files_of_two_shapes_are_refused(raw: Path) -> None:
    write(raw / "a.jsonl", pairs(20))
    write(raw / "b.jsonl", [talk(row) for row in pairs(20)])
    with pytest.raises(StageError) as error:
        prepare(source="data/raw/*.jsonl")
    assert_names(error.value, "b.jsonl", "transcripts", "preferences")


def hub(dataset: str) -> dict[str, Any]:
    return {**tiny_params()["data"]["hub"], "dataset": dataset, "revision": "main", "test": "test"}


def test_auto_is_the_hub_where_it_can_be_read(raw: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_reviews(Path("owner/reviews"), train=300, test=60)
    for source in ("hub", "auto"):
        there = prepare(judge="data", source=source, hub=hub("owner/reviews"))
        assert there.figures["source"] == "owner/reviews"
        assert list(there.figures["files"]) == ["owner/reviews, train", "owner/reviews, test"]
    assert capsys.readouterr().err == ""


def test_the_judge_can_learn_from_the_hub(raw: Path) -> None:
    write(raw / "pairs.jsonl", pairs(120))
    write_reviews(Path("owner/reviews"), train=300, test=60)
    prepared = prepare(judge="owner/reviews@main")
    assert list(prepared.figures["files"]) == ["pairs_jsonl", "owner/reviews, train", "owner/reviews, test"]
    assert len(prepared.tables["labelled"]) >= 45


@pytest.fixture
def small_world(tmp_path: Path) -> World:
    """Make a checkout with a folder of reviews as its source. The pipeline has not run in it."""
    tree = tiny_params()
    tree["data"].update(SMALL, source="data/raw/reviews", prompts_validation=2)
    tree["ppo"].update(validation_prompts=2)
    tree["evaluate"].update(num_samples=4)
    tree["ppo"].update(batch_size=4)
    world = checkout(tmp_path / "repository", tree)
    write_reviews(world / "data/raw/reviews", train=400, test=80)
    return world


def test_a_look_before_work_writes_nothing(small_world: World, run_stage: RunStage) -> None:
    before = sorted(
        str(path) for path in small_world.folder.rglob("*") if ".git/" not in str(path) and "__pycache__" not in str(path)
    )
    output = run_stage(small_world, "prepare", "--preview", "2").out
    for title in (
        "corpus, train",
        "sft, train",
        "preferences, train",
        "preferences, validation",
        "labelled, test",
        "prompts, test",
    ):
        assert title in output
    assert "prepare: wrote nothing; " in output
    after = sorted(
        str(path) for path in small_world.folder.rglob("*") if ".git/" not in str(path) and "__pycache__" not in str(path)
    )
    assert after == before
    for script, count in (("prepare", "0"), ("sft", "2")):  # sft has no preview
        error = run_stage(small_world, script, "--preview", count, status=2).err
        assert_names(the_error(f"python stages/{script}.py", error), "--preview", count)


def test_a_file_level_fault_leaves_what_was_there(small_world: World, run_stage: RunStage) -> None:
    for name in ("check", "hashes", "prepare"):
        run_stage(small_world, name)
    written = {file: file.read_bytes() for file in (small_world / "data/prepared").iterdir()}
    assert {file.name for file in written} == {Path(out).name for out in stage.WRITES if out.startswith("data/prepared/")}
    train = small_world / "data/raw/reviews/train.jsonl"
    train.write_bytes(train.read_bytes() + b'{"text": ')
    error = the_error("prepare", run_stage(small_world, "prepare", status=1).err)
    assert_names(error, "data/raw/reviews/train.jsonl, line 401", "not JSON")
    assert {file: file.read_bytes() for file in (small_world / "data/prepared").iterdir()} == written


def test_the_card_says_what_the_data_are(small_world: World, run_stage: RunStage) -> None:
    small_world.set("data.licence", "CC0 <b>")
    for name in ("check", "hashes", "prepare"):
        run_stage(small_world, name)
    card = (small_world / "data/prepared/README.md").read_text()
    figures = json.loads((small_world / "reports/data.json").read_text())
    assert "- Source: data/raw/reviews (labelled)" in card
    assert r"- Licence: CC0 \<b\>" in card
    assert r"| reviews/train\_jsonl | 400 | 400 | 0 | 0 | 0 |" in card
    assert f"| sft | train | {figures['splits']['sft']['train']} |" in card
    for title in ("### corpus, train", "### preferences, validation", "### prompts, test", "## Lengths"):
        assert title in card


@pytest.mark.thorough
@pytest.mark.skipif(not (SHARED / "data/hh-rlhf").is_dir(), reason="needs the HH-RLHF file of ../shared (or RLHF_SHARED)")
def test_the_real_transcripts_are_accounted_for(raw: Path) -> None:
    """Of 2,312 pairs, 5 do not share a prompt and 4 have an empty text. So 2,303 are kept."""
    (raw / "hh-rlhf").symlink_to(SHARED / "data/hh-rlhf")
    profile = yaml.safe_load((ROOT / "profiles/hh-local.yaml").read_text())["data"]
    sizes = {"labelled_texts": 200, "labelled_held_out": 60}
    prepared = stage.prepare(prepare_params(DataSettings(**profile | sizes), "synthetic"))
    fates = prepared.figures["files"]["hh-rlhf/harmless-base-test_jsonl_gz"]
    assert list(fates.values()) == [2312, 2303, 9, 0, 0, 0]
    reasons = Counter(row["reason"] for row in prepared.dropped if row["file"] != "grammar")
    assert sorted(reasons.values()) == [4, 5]
    assert prepared.figures["shape"] == "transcripts"
    with gzip.open(SHARED / "data/hh-rlhf/harmless-base-test.jsonl.gz") as lines:
        whole = {normalised(json.loads(line)["chosen"]) for line in lines}
    for row in prepared.tables["preferences"]:
        assert row["prompt"].startswith("\n\nHuman: ")
        assert row["prompt"].endswith("\n\nAssistant:")
        assert normalised(row["prompt"] + row["chosen"]) in whole
    held_out = {row["prompt"] for row in prepared.tables["prompts"] + prepared.tables["preferences"] if row["split"] != "train"}
    trained = {row["prompt"] for row in prepared.tables["sft"] + prepared.tables["preferences"] if row["split"] == "train"}
    assert not held_out & trained
    assert largest_similarity(list(held_out), list(trained)) < profile["near_duplicate"]


GOOD = {"prompt": "It", "chosen": " is.", "rejected": " was."}


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({"text": "x"}, ["chosen", "prompt", "rejected"]),
        (GOOD | {"prompt": 3}, ["row 0", "prompt"]),
        (GOOD | {"chosen": None}, ["row 0", "chosen"]),
        (GOOD | {"rejected": " "}, ["row 0", "rejected"]),
        (GOOD | {"rejected": " is."}, ["row 0", "chosen", "rejected"]),
        (GOOD | {"split": None}, ["row 0", "split"]),
        (GOOD | {"split": "train"}, ["split", "validation"]),
    ],
)
def test_a_data_set_of_pairs_is_checked(row: Row, parts: list[str]) -> None:
    with pytest.raises(StageError) as error:
        pairs_of_dataset(Dataset.from_list([row]))
    assert_names(error.value, *parts)
    with pytest.raises(StageError, match=r"datasets\.Dataset"):
        pairs_of_dataset([row])


def test_without_splits_every_tenth_pair_is_for_validation() -> None:
    pairs = pairs_of_dataset(Dataset.from_list([GOOD] * 20))
    assert [number for number, row in enumerate(pairs) if row["split"] == "validation"] == [0, 10]
    given = [GOOD | {"split": split} for split in ("validation", "train", "test")]
    assert pairs_of_dataset(Dataset.from_list(given)) == given
