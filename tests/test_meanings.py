"""What labels, ratings and preference values mean, and the values that stop the stage because nobody says what they mean."""

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

from .conftest import tiny_params


def meanings(setting: str = "data.source", **changes: Any) -> Meanings:
    return Meanings(DataSettings(**(tiny_params()["data"] | changes)), setting)


def read(files: Sequence[Sequence[Any]], what: str = "label", **changes: Any) -> list[int]:
    """The meanings of the values of some files, those without one left out."""
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
def test_two_classes_are_understood(values: list[Any]) -> None:
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
def test_values_that_are_no_two_classes_stop(values: list[Any], listed: str) -> None:
    with pytest.raises(StageError) as error:
        read([[0, 1], values])
    said = str(error.value)
    assert said.startswith("file 1: the labels are ")
    assert listed in said
    assert "data.labels: {negative: [1, 2], positive: [4, 5]}" in said
    assert len(said) < 700
    assert said.isprintable()


def test_two_ways_to_say_the_same_stop() -> None:
    with pytest.raises(StageError, match=r"^the source: the labels are 0 \(1x\), 1 \(1x\), 'neg' \(1x\), 'pos' \(1x\); only"):
        read([[0, 1], ["neg", "pos"]])


def test_one_class_stops() -> None:
    assert read([[0, 0], [1]]) == [0, 0, 1], "a file of each"
    with pytest.raises(StageError, match=r"^the source: no label is positive; the labels are 0 \(3x\); .* data\.labels"):
        read([[0, 0], [0]])
    with pytest.raises(StageError, match=r"no label is negative; the labels are 1 \(1x\), 2 \(1x\); "):
        read([[1, 2]], labels={"negative": [0], "positive": [1]})


def test_hidden_labels_stop() -> None:
    with pytest.raises(StageError, match=r"^file 1: every label is -1 \(2x\), .* hidden; leave out this file or split"):
        read([[0, 1], [-1, -1, None]])
    assert read([[0, 1, None, float("nan"), "", "nan"]]) == [0, 1]


def test_labels_that_are_told_are_all_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    labels = {"negative": [0, 1], "positive": [4, "5"]}
    assert read([[0, 1, 2, "4.0", 3, 3], ["pos"]], labels=labels) == [0, 0, 1]
    assert capsys.readouterr().err.splitlines() == [
        "prepare: warning: file 0: data.labels does not name 2 (1x), 3 (2x), so these rows are rejected",
        "prepare: warning: file 1: data.labels does not name 'pos' (1x), so these rows are rejected",
        "prepare: warning: data.labels names 5, which no row of the source has",
    ]


def test_the_judges_labels_are_not_told_by_data_labels() -> None:
    source = meanings("judge.source")
    with suppress(Fault):
        source.label(2)
    with pytest.raises(StageError, match=r"write 0 and 1 .*data\.source.*judge\.source"):
        source.end_of_file("file")


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([2, "x"], "the label is none that is understood"),
        ([[1], {"a": 1}, b"1"], "the label is no single value"),
        ([None, " ", float("nan")], "no label"),
    ],
)
def test_faults_are_of_a_kind(values: list[Any], kind: str) -> None:
    kinds = set()
    for value in values:
        with pytest.raises(Fault) as fault:
            meanings().label(value)
        kinds.add(fault.value.kind)
    assert kinds == {kind}


def test_ratings_have_limits(capsys: pytest.CaptureFixture[str]) -> None:
    assert read([[1, "4", 4.5, 6, "7.0", 10, None, "good", float("inf")]], "rating") == [0, 0, 1, 1]
    with pytest.raises(Fault) as fault:
        meanings().rating(5)
    assert (fault.value.kind, str(fault.value)) == (
        "the rating lies between the limits",
        "rating is 5: neither at most 4 nor at least 7",
    )
    assert capsys.readouterr().err == ""


def test_ratings_of_another_scale_stop(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(StageError) as error:
        read([[1, 2, 3, 4, 5, 5]], "rating")
    assert str(error.value) == (
        "the source: no rating is at least data.rating_positive 7; the ratings are 1 (1x), 2 (1x), 3 (1x), 4 (1x), 5 (2x); set "
        "both limits to fit the scale"
    )
    with pytest.raises(StageError, match=r"no rating is at most data\.rating_negative 4; the ratings are 50 \(1x\), 90 \(1x\)"):
        read([[90, 50]], "rating")
    assert read([[1, 2, 3, 4, 5, 5]], "rating", rating_negative=2, rating_positive=4) == [0, 0, 1, 1, 1]
    assert len(read([[3, *range(10, 50)]], "rating")) == 41
    assert "warning: the source: only 1 of 41 ratings are at most data.rating_negative 4; the" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (["a", "B", "tie"], [1, -1, 0]),
        (["model_a", "model_b", "tie", "tie (bothbad)"], [1, -1, 0, 0]),
        (["response_a", "Response B", "Answer A"], [1, -1, 1]),
    ],
)
def test_words_for_preferences_are_understood(values: list[Any], found: list[int]) -> None:
    assert read([values], "margin") == found


@pytest.mark.parametrize("values", [[0, 1, 2], [1, 2], ["1", "2"], [True, False], [-3, 3], ["response_1"], ["both"], ["a", 1]])
def test_other_preferences_stop(values: list[Any]) -> None:
    with pytest.raises(StageError) as error:
        read([values], "margin")
    assert str(error.value).startswith("file 0: the preferences are ")
    for value in values:
        assert f"{value!r} (1x)" in str(error.value)
    assert str(error.value).endswith("neither, such as data.preference_values: {a: [1], b: [2], tie: [0]}")


def test_all_votes_of_a_row_are_listed() -> None:
    source = meanings()
    with pytest.raises(Fault, match=r"^preference is 0: not understood$"):
        source.margin([0, 1, 1, None, 2])
    with pytest.raises(StageError, match=r"the preferences are 0 \(1x\), 1 \(2x\), 2 \(1x\);"):
        source.end_of_file("file")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"preference_values": {"a": [1], "b": ["1.0"], "tie": []}}, "data.preference_values: 1 cannot mean both a and b"),
        ({"preference_values": {"a": ["x"], "b": ["y"], "tie": ["X"]}}, "data.preference_values: x cannot mean both a and tie"),
        ({"labels": {"negative": [0], "positive": [False, 1]}}, "data.labels: 0 cannot mean both negative and positive"),
        ({"columns": {"label": ["one", "two"]}}, "data.columns: label should be one column"),
    ],
)
def test_settings_that_contradict_themselves_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        meanings(**changes)


def test_preferences_that_are_told_are_all_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    told = {"a": [1], "b": [2], "tie": [0, "both bad"]}
    assert read([["1", 2.0, 0, "Both bad", 1, 3, "a"]], "margin", preference_values=told) == [1, -1, 0, 0, 1]
    assert (
        capsys.readouterr().err
        == "prepare: warning: file 0: data.preference_values does not name 3 (1x), 'a' (1x), so these rows are rejected\n"
    )
    source = meanings(preference_values=told)
    assert source.margin([1, 2, None, 1, 0]) == 1
    with pytest.raises(Fault, match=r"^preference is 3: data\.preference_values does not name it$"):
        source.margin([1, 3])
