"""The judge recognises negation, and gives the same opinions after it is saved and loaded."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.evaluation.classifier import Judge, is_negated

from .conftest import ROOT, assert_names

TEXTS = [f"it was {word} {noun}" for word in ("warm", "not dull") for noun in ("film", "plot", "cast")]
TEXTS += [f"it was {word} {noun}" for word in ("dull", "not warm") for noun in ("film", "plot", "cast")]
LABELS = np.array([1] * 6 + [0] * 6)


@pytest.fixture(scope="module")
def judge() -> Judge:
    return Judge.train(TEXTS, LABELS, ngrams=2, min_count=1, strength=100.0)


def test_a_negated_word_changes_the_opinion(judge: Judge) -> None:
    positive = judge.positive(["it was warm", "it was dull", "it was not warm", "it was not dull"])
    assert (positive > 0.5).tolist() == [True, False, False, True]
    words = Judge.train(TEXTS, LABELS, ngrams=1, min_count=1, strength=100.0).positive(["it was warm", "it was not warm"])
    assert words[0] - words[1] < positive[0] - positive[2], "single words do not show negation"


def test_a_saved_judge_gives_the_same_opinions(judge: Judge, tmp_path: Path) -> None:
    judge.save(tmp_path / "judge")
    again = Judge.load(tmp_path / "judge")
    texts = [*TEXTS, "", "nothing known", "Warm, WARM film!"]
    assert np.array_equal(judge.positive(texts), again.positive(texts))
    assert sorted(path.name for path in (tmp_path / "judge").iterdir()) == ["judge.json", "judge.safetensors"]


TRAIN = """
import random, sys
import numpy as np
from rlhf_sentiment.evaluation.classifier import Judge

rng = random.Random(0)
words = [[f"{side}{number}" for number in range(60)] for side in "pn"]
texts = [" ".join(rng.choices(words[k % 2], k=9) + rng.choices(words[1 - k % 2], k=4)) for k in range(200)]
judge = Judge.train(texts, np.array([1, 0] * 100), ngrams=2, min_count=1, strength=4.0)
judge.save(sys.argv[1])
"""


def test_other_kernels_of_linear_algebra_give_the_same_bytes(tmp_path: Path) -> None:
    """OpenBLAS has other kernels for an old processor. Their sums have other last bits."""
    for kernels in ("Haswell", "Nehalem"):
        folder = tmp_path / kernels
        command = [sys.executable, "-c", TRAIN, str(folder)]
        subprocess.run(command, env=os.environ | {"OPENBLAS_CORETYPE": kernels}, cwd=ROOT / "stages", check=True)
    for name in ("judge.json", "judge.safetensors"):
        assert (tmp_path / "Haswell" / name).read_bytes() == (tmp_path / "Nehalem" / name).read_bytes()


def test_scripts_without_spaces_have_features_too(tmp_path: Path) -> None:
    texts = [f"{noun}{word}。" for noun in ("电影", "音乐") for word in ("好看", "不难看", "难看", "不好看")]
    judge = Judge.train(texts, np.array([1, 1, 0, 0] * 2), ngrams=2, min_count=1, strength=100.0)
    assert {"好 看", "不 难"} <= set(judge.vectorizer.get_feature_names_out())
    assert (judge.positive(["导演，好看", "导演，难看", "导演，不好看", "导演，不难看"]) > 0.5).tolist() == [
        True,
        False,
        False,
        True,
    ]
    judge.save(tmp_path / "judge")
    again = Judge.load(tmp_path / "judge")
    assert np.array_equal(judge.positive([*texts, "ดีมาก", "👍"]), again.positive([*texts, "ดีมาก", "👍"]))


def test_a_contraction_is_one_feature() -> None:
    analyzer = Judge.train(["no", "yes"], np.array([0, 1]), 1, 1, 1.0).vectorizer.build_analyzer()
    assert analyzer("I didn't see rock’n'roll – a 2nd time.") == ["i", "didn't", "see", "rock’n", "roll", "a", "2nd", "time"]


def test_a_damaged_judge_is_refused(judge: Judge, tmp_path: Path) -> None:
    judge.save(tmp_path / "judge")
    (tmp_path / "judge/judge.safetensors").write_bytes(b"no")
    with pytest.raises(StageError) as error:
        Judge.load(tmp_path / "judge")
    assert_names(error.value, str(tmp_path / "judge"), "cannot be loaded")


@pytest.mark.parametrize("change", [lambda array: array * np.nan, lambda array: np.concatenate([array, array], axis=-1)])
@pytest.mark.parametrize("name", ["idf", "weights"])
def test_a_judge_with_wrong_numbers_is_refused(judge: Judge, tmp_path: Path, name: str, change: Any) -> None:
    judge.save(tmp_path / "judge")
    file = tmp_path / "judge/judge.safetensors"
    numbers = load_file(file)
    save_file(numbers | {name: change(numbers[name])}, file)
    with pytest.raises(StageError) as error:
        Judge.load(tmp_path / "judge")
    assert_names(error.value, str(tmp_path / "judge"), "cannot be loaded")


def test_the_strongest_terms(judge: Judge) -> None:
    strongest = judge.strongest(3)
    assert "warm" in " ".join(strongest["positive"])
    assert "not warm" in strongest["negative"]


@pytest.mark.parametrize(
    ("text", "negated"),
    [("not dull", True), ("I didn't", True), ("I didn’t", True), ("Nobody", True), ("a knot", False), ("notable", False)],
)
def test_negated_words_are_found(text: str, negated: bool) -> None:
    assert is_negated(text) == negated
