"""The meanings of labels, ratings and preference values, and the values without a meaning, which stop the stage."""

from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from rlhf_sentiment.data.faults import Fault
from rlhf_sentiment.data.meanings import Meanings
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.settings.data import DataSettings

from .conftest import assert_names, tiny_params


def meanings(setting: str = "data.source", **changes: Any) -> Meanings:
    return Meanings(DataSettings(**(tiny_params()["data"] | changes)), setting)


def read(files: Sequence[Sequence[Any]], what: str = "label", **changes: Any) -> list[int]:
    """Return the meanings of the values of some files. Values without a meaning are left out."""
    source = meanings(**changes)
    known = []
    for number, values in enumerate(files):
        for value in values:
            with suppress(Fault):
                known.append(source.margin([value]) if what == "margin" else getattr(source, what)(value))
        source.end_of_file(f"file {number}")
    source.end_of_source("the source")
    return known


@pytest.mark.parametrize(
    "values",
    [
        [0, 1],
        [0.0, 1.0],
        ["0", "1"],
        [" 0 ", "1.0"],
        [False, True],
        ["False", "TRUE"],
        [False, "1"],
        [Decimal(0), Decimal("1.0")],
        [np.int64(0), np.float32(1)],
        [np.bool_(False), np.bool_(True)],
        ["neg", "Pos"],
        ["negative ", "POS"],
    ],
)
def test_usual_words_for_two_classes_are_known(values: list[Any]) -> None:
    assert read([values, values[::-1]]) == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("values", "listed"),
    [
        ([0, 1, 2, 0, "2"], "0 (2x), 1 (1x), 2 (2x)"),
        ([4, 3, 2, 1, 0], "0 (1x), 1 (1x), 2 (1x), 3 (1x), 4 (1x)"),
        ([1, 2], "1 (1x), 2 (1x)"),
        ([-1, 1], "-1 (1x), 1 (1x)"),
        ([-1, 0, 1, 1], "-1 (1x), 0 (1x), 1 (2x)"),
        ([0, 4], "0 (1x), 4 (1x)"),
        (["good", "bad", "good"], "'good' (2x), 'bad' (1x)"),
        (["yes", "no"], "'yes' (1x), 'no' (1x)"),
        (["LABEL_0", "LABEL_1"], "'LABEL_0' (1x), 'LABEL_1' (1x)"),
        (["neg", "neutral", "pos"], "'neg' (1x), 'neutral' (1x), 'pos' (1x)"),
        ([0, "pos", 1], "0 (1x), 'pos' (1x), 1 (1x)"),
        ([0.0, 0.25, 1.0], "0 (1x), 0.25 (1x), 1 (1x)"),
        ([number / 8 for number in range(9)] * 2, "0 (2x), 0.125 (2x), 0.25 (2x), 0.375 (2x), 0.5 (2x), 0.625 (2x), 0.75 "
         "(2x), 0.875 (2x) and 1 more"),
        ([number / 5000 for number in range(5001)], "0.0014 (1x) and at least 992 more"),
        (["\x1b[31m" + "x" * 5000, 1], "'\\x1b[31mxxx"),
    ],
)  # fmt: skip
def test_labels_that_are_not_two_classes_stop_the_stage(values: list[Any], listed: str) -> None:
    with pytest.raises(StageError) as error:
        read([[0, 1], values])
    message = str(error.value)
    assert_names(message, "file 1: ", "labels are ", listed, "data.labels: {")
    assert len(message) < 700
    assert message.isprintable()


def test_numbers_mixed_with_words_stop_the_stage() -> None:
    with pytest.raises(StageError) as error:
        read([[0, 1], ["neg", "pos"]])
    assert_names(error.value, "the source: ", "labels are 0 (1x), 1 (1x), 'neg' (1x), 'pos' (1x)")


def test_labels_of_one_class_stop_the_stage() -> None:
    assert read([[0, 0], [1]]) == [0, 0, 1], "a file of each"
    with pytest.raises(StageError) as error:
        read([[0, 0], [0]])
    assert_names(error.value, "the source: ", "no label is positive", "labels are 0 (3x)", "data.labels")
    with pytest.raises(StageError) as error:
        read([[1, 2]], labels={"negative": [0], "positive": [1]})
    assert_names(error.value, "no label is negative", "labels are 1 (1x), 2 (1x)")


def test_hidden_labels_stop_the_stage() -> None:
    with pytest.raises(StageError) as error:
        read([[0, 1], [-1, -1, None]])
    assert_names(error.value, "file 1: ", "label is -1 (2x)", "hidden")
    assert read([[0, 1, None, float("nan"), "", "nan"]]) == [0, 1]


def test_rows_with_a_label_outside_data_labels_are_rejected_with_a_warning(capsys: pytest.CaptureFixture[str]) -> None:
    labels = {"negative": [0, 1], "positive": [4, "5"]}
    assert read([[0, 1, 2, "4.0", 3, 3], ["pos"]], labels=labels) == [0, 0, 1]
    first, second, last = capsys.readouterr().err.splitlines()
    assert_names(first, "warning: file 0: ", "rejected", "data.labels does not contain 2 (1x), 3 (2x)")
    assert_names(second, "warning: file 1: ", "rejected", "data.labels does not contain 'pos' (1x)")
    assert_names(last, "warning: data.labels", "no row of the source", ": 5")


def test_data_labels_does_not_define_the_labels_of_the_judge() -> None:
    source = meanings("judge.source")
    with suppress(Fault):
        source.label(2)
    with pytest.raises(StageError) as error:
        source.end_of_file("file")
    assert_names(error.value, "file: ", "2 (1x)", "write 0 and 1", "judge.source")


@pytest.mark.parametrize(
    ("values", "part"),
    [
        ([2, "x"], "no known meaning"),
        ([[1], {"a": 1}, b"1"], "not a number or a word"),
        ([None, " ", float("nan")], "no label"),
    ],
)
def test_values_of_one_kind_of_fault_have_the_same_reason(values: list[Any], part: str) -> None:
    kinds = set()
    for value in values:
        with pytest.raises(Fault) as fault:
            meanings().label(value)
        kinds.add(fault.value.kind)
    (kind,) = kinds
    assert_names(kind, "label", part)


def test_a_rating_between_the_limits_is_a_fault(capsys: pytest.CaptureFixture[str]) -> None:
    assert read([[1, "4", 4.5, 6, "7.0", 10, None, "good", float("inf")]], "rating") == [0, 0, 1, 1]
    with pytest.raises(Fault) as fault:
        meanings().rating(5)
    assert_names(fault.value, "rating is 5", "data.rating_negative 4", "data.rating_positive 7")
    assert_names(fault.value.kind, "rating", "between", "data.rating_negative", "data.rating_positive")
    assert not any(letter.isdigit() for letter in fault.value.kind), "the kind has no values of the row"
    assert capsys.readouterr().err == ""


def test_ratings_of_another_scale_stop_the_stage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StageError) as error:
        read([[1, 2, 3, 4, 5, 5]], "rating")
    counts = "ratings are 1 (1x), 2 (1x), 3 (1x), 4 (1x), 5 (2x)"
    assert_names(error.value, "the source: ", "no rating", "data.rating_positive 7", counts)
    with pytest.raises(StageError) as error:
        read([[90, 50]], "rating")
    assert_names(error.value, "the source: ", "no rating", "data.rating_negative 4", "ratings are 50 (1x), 90 (1x)")
    assert read([[1, 2, 3, 4, 5, 5]], "rating", rating_negative=2, rating_positive=4) == [0, 0, 1, 1, 1]
    assert len(read([[3, *range(10, 50)]], "rating")) == 41
    assert_names(capsys.readouterr().err, "warning: the source: ", "1 of 41 ratings", "data.rating_negative 4")


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["a", "B", "tie"], [1, -1, 0]),
        (["model_a", "model_b", "tie", "tie (bothbad)"], [1, -1, 0, 0]),
        (["response_a", "Response B", "Answer A"], [1, -1, 1]),
    ],
)
def test_usual_words_for_preferences_are_known(values: list[Any], found: list[int]) -> None:
    assert read([values], "margin") == found


@pytest.mark.parametrize("values", [[0, 1, 2], [1, 2], ["1", "2"], [True, False], [-3, 3], ["response_1"], ["both"], ["a", 1]])
def test_other_preferences_stop_the_stage(values: list[Any]) -> None:
    with pytest.raises(StageError) as error:
        read([values], "margin")
    counts = [f"{value!r} (1x)" for value in values]
    assert_names(error.value, "file 0: ", "preferences are ", *counts, "data.preference_values: {a: [1], b: [2], tie: [0]}")


def test_all_votes_of_a_row_are_listed() -> None:
    source = meanings()
    with pytest.raises(Fault) as fault:
        source.margin([0, 1, 1, None, 2])
    assert_names(fault.value, "preference is 0", "no known meaning")
    with pytest.raises(StageError) as error:
        source.end_of_file("file")
    assert_names(error.value, "file: ", "preferences are 0 (1x), 1 (2x), 2 (1x);")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        (
            {"preference_values": {"a": [1], "b": ["1.0"], "tie": []}},
            ["data.preference_values", "1 cannot mean both", "a and b"],
        ),
        ({"preference_values": {"a": ["x"], "b": ["y"], "tie": ["X"]}}, ["data.preference_values", "x cannot", "a and tie"]),
        ({"labels": {"negative": [0], "positive": [False, 1]}}, ["data.labels", "0 cannot", "negative and positive"]),
        ({"columns": {"label": ["one", "two"]}}, ["data.columns", "label", "one column"]),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(ValueError, match="1 validation error") as error:
        meanings(**changes)
    assert_names(error.value, *parts)


def test_rows_with_a_preference_outside_preference_values_are_rejected_with_a_warning(
    capsys: pytest.CaptureFixture[str],
) -> None:
    known = {"a": [1], "b": [2], "tie": [0, "both bad"]}
    assert read([["1", 2.0, 0, "Both bad", 1, 3, "a"]], "margin", preference_values=known) == [1, -1, 0, 0, 1]
    (warning,) = capsys.readouterr().err.splitlines()
    assert_names(warning, "warning: file 0: ", "rejected", "data.preference_values does not contain 3 (1x), 'a' (1x)")
    source = meanings(preference_values=known)
    assert source.margin([1, 2, None, 1, 0]) == 1
    with pytest.raises(Fault) as fault:
        source.margin([1, 3])
    assert_names(fault.value, "preference is 3", "not in data.preference_values")
