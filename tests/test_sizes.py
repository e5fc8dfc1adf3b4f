"""The number of rows of each table: whole numbers, shares and empty counts, and messages for a source that is too small."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import prepare
from rlhf_sentiment.data.sizes import Sizes
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.settings.counts import number_of
from rlhf_sentiment.settings.data import PROPORTIONS, DataSettings

from .conftest import ROOT, assert_names, prepare_params, tiny_params, write_reviews

EMPTY: dict[str, Any] = dict.fromkeys(PROPORTIONS)


def data(**changes: Any) -> DataSettings:
    return DataSettings(**(tiny_params()["data"] | {"source": "data/raw/made"} | changes))


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a folder data/raw/made of 400 reviews for training and 100 for test."""
    monkeypatch.chdir(tmp_path)
    write_reviews(tmp_path / "data/raw/made", train=400, test=100)


def test_a_count_is_a_number_a_share_or_all() -> None:
    assert [number_of(asked, 100) for asked in (7, 0.29, 0.5, None)] == [7, 29, 50, 100]


def test_shares_of_few_prompts_give_at_least_one_prompt(made: None) -> None:
    counts = {"prompts_validation": 4, "prompts_test": 10}
    prepared = prepare.prepare(prepare_params(data(**EMPTY | counts), num_samples=0.02, validation_prompts=0.1))
    sizes = prepared.figures["sizes"]
    assert (sizes["evaluate_num_samples"], sizes["ppo_validation_prompts"]) == (2, 1)


def test_the_proportions_are_those_of_params_yaml() -> None:
    default = yaml.safe_load((ROOT / "params.yaml").read_text())["data"]
    assert {name: default[name] for name in PROPORTIONS} == PROPORTIONS


def test_empty_counts_divide_the_texts_that_remain() -> None:
    # 100 pairs take 200 of 1000 texts. The other 800 are split 3 : 4. The number of demonstrations is even.
    sizes = Sizes(data(**EMPTY | {"pairs": 100}))
    there = {"corpus_texts": 1000, "sft_rows": 1000, "pairs": 500, "prompts_train": 1000}
    sizes.share_out(1000, there, {"pairs": 2})
    assert sizes.came_to == {"corpus_texts": 1000, "sft_rows": 342, "pairs": 100, "prompts_train": 457}
    assert not sizes.short


def test_a_pair_counts_as_two_texts() -> None:
    # Weights 3, 2 x 3 and 4, of 13: 650 texts make 150 demonstrations, 300 texts of 150 pairs, and 200 prompts.
    sizes = Sizes(data(**EMPTY))
    there = {"sft_rows": 650, "pairs": 325, "prompts_train": 650}
    sizes.share_out(650, there, {"pairs": 2})
    assert sizes.came_to == {"sft_rows": 150, "pairs": 150, "prompts_train": 200}


def test_a_share_is_of_the_rows_that_the_source_has() -> None:
    sizes = Sizes(data(sft_rows=0.25, pairs=0.5))
    sizes.share_out(1000, {"sft_rows": 900, "pairs": 450}, {"pairs": 2})
    assert sizes.came_to == {"sft_rows": 224, "pairs": 225}, "demonstrations go in twos"


def test_a_part_below_one_row_is_one_row() -> None:
    sizes = Sizes(data(**EMPTY | {"sft_rows": 0.01}))
    sizes.share_out(12, {"sft_rows": 12, "pairs_held_out": 6, "prompts_validation": 12}, {"pairs_held_out": 2})
    assert sizes.came_to == {"sft_rows": 2, "pairs_held_out": 4, "prompts_validation": 1}
    assert not sizes.short


def test_a_count_that_is_too_large_is_named_with_the_number_that_fits() -> None:
    sizes = Sizes(data(**EMPTY | {"sft_rows": 40, "pairs": 7}))
    sizes.share_out(30, {"sft_rows": 25, "pairs": 0, "prompts_train": 0})
    assert list(sizes.short) == ["data.sft_rows", "data.pairs", "data.prompts_train"]
    rows, pairs, prompts = sizes.short.values()
    assert_names(rows, "data.sft_rows", "40", "at most 24")
    assert_names(pairs, "data.pairs", "7", "none")
    assert_names(prompts, "data.prompts_train", "empty", "none")


def test_one_message_names_all_counts_that_are_too_large(made: None) -> None:
    much: dict[str, Any] = dict.fromkeys(PROPORTIONS, 2000)
    asked: dict[str, Any] = {"batch_size": 3000, "validation_prompts": 2500, "num_samples": 2600}
    with pytest.raises(StageError) as error:
        prepare.prepare(prepare_params(data(**much), **asked))
    message = str(error.value)
    fitting: dict[str, Any] = {key: int(number) for key, number in re.findall(r"\w+\.(\w+) [^;]* at most (\d+)", message)}
    assert fitting.keys() == much.keys() | asked.keys()
    counts = {name: fitting.pop(name) for name in PROPORTIONS}
    prepared = prepare.prepare(prepare_params(data(**counts), **fitting))
    assert {key: prepared.figures["sizes"][key] for key in counts} == counts
    for name in ("pairs", "sft_rows", "prompts_validation"):
        step = 2 if name == "sft_rows" else 1
        with pytest.raises(StageError) as error:
            prepare.prepare(prepare_params(data(**counts | {name: counts[name] + step}), **fitting))
        assert_names(error.value, f"data.{name} ", f" {counts[name] + step}, ", f" at most {counts[name]} ")
        assert str(error.value).count("at most") == 1, "the other counts are not too large"


def test_the_prompts_of_the_report_are_those_of_its_split(made: None) -> None:
    asked = data(**EMPTY | {"prompts_test": 4, "prompts_validation": 6})
    assert prepare.prepare(prepare_params(asked, split="validation")).figures["sizes"]["evaluate_num_samples"] == 6
    assert prepare.prepare(prepare_params(asked, split="test")).figures["sizes"]["evaluate_num_samples"] == 4
    with pytest.raises(StageError) as error:
        prepare.prepare(prepare_params(asked, split="validation", num_samples=7))
    assert_names(error.value, "evaluate.num_samples is 7", "at most 6")


def test_empty_counts_use_all_texts(made: None) -> None:
    prepared = prepare.prepare(prepare_params(data(**EMPTY)))
    sizes, rows = prepared.figures["sizes"], prepared.figures["splits"]
    assert sizes["evaluate_num_samples"] == sizes["prompts_test"] == rows["prompts"]["test"]
    assert sizes["ppo_validation_prompts"] == sizes["prompts_validation"] == rows["prompts"]["validation"]
    assert sizes["pairs"] == rows["preferences"]["train"] + prepared.figures["dropped"]["preferences"]
    assert sizes["sft_rows"] + 2 * sizes["pairs"] + sizes["prompts_train"] <= sizes["corpus_texts"] <= 400
    assert abs(sizes["sft_rows"] - sizes["pairs"]) <= 1
    assert 1.2 < sizes["prompts_train"] / sizes["sft_rows"] < 1.5


def test_prompts_that_begin_nearly_all_texts_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_reviews(tmp_path / "data/raw/made", train=400, test=100)
    for file in (tmp_path / "data/raw/made").iterdir():
        file.write_text(file.read_text().replace('{"text": "', '{"text": "I say: '))
    with pytest.raises(StageError) as error:
        prepare.prepare(prepare_params(data(**EMPTY, prompt_words=2)))
    assert re.search(r"\d+ of \d+ training texts", str(error.value))
    assert_names(error.value, "data.prompt_words")


def test_the_grammar_needs_whole_numbers() -> None:
    with pytest.raises(ValueError, match="whole numbers") as error:
        data(source="synthetic", pairs=None, sft_rows=0.5)
    assert_names(error.value, "data.sft_rows", "data.pairs")
