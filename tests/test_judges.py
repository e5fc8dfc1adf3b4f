"""Calibration and agreement against hand-worked values, Platt's scale, and any text classifier as a judge."""

from pathlib import Path

import numpy as np
import pytest
import torch

from rlhf_sentiment.judge import examine, reliability
from rlhf_sentiment.judges import agreement, classifier_of, judged, lexicon, platt, text_scores
from rlhf_sentiment.models import load_policy, load_reward_model, load_tokenizer, reward_scores
from rlhf_sentiment.run import StageError

from .conftest import World, write_classifier, write_llama


def test_calibration_of_a_worked_example() -> None:
    # Bin .1-.2: said .15, was 1/2. Bin .9-1: said .95, was 1. Weighted: (2 x .35 + 2 x .05) / 4.
    positive, labels = np.array([0.15, 0.15, 0.95, 0.95]), np.array([0, 1, 1, 1])
    assert examine(positive, labels) == pytest.approx({"accuracy": 0.75, "ece": 0.2})
    table = reliability(positive, labels)
    assert table["texts"].tolist() == [0, 2, 0, 0, 0, 0, 0, 0, 0, 2]
    assert table["was"].dropna().tolist() == [0.5, 1.0]
    assert examine(np.array([0.0, 1.0]), np.array([0, 1]))["ece"] == 0, "1 belongs to the last bin"


def test_kappa_of_a_worked_example() -> None:
    # 50 texts: both yes 20, both no 15, one alone 10, other alone 5. p_o = .7, p_e = .5, kappa = .4.
    one = np.array([1.0] * 20 + [0.0] * 15 + [1.0] * 5 + [0.0] * 10)
    other = np.array([1.0] * 20 + [0.0] * 15 + [0.0] * 5 + [1.0] * 10)
    assert agreement({"a": one, "b": other, "c": one}) == pytest.approx({"a_b": 0.4, "a_c": 1.0, "b_c": 0.4})
    assert agreement({"a": np.ones(3), "b": np.ones(3)}) == {"a_b": 1.0}


def test_platt_finds_the_logistic_curve() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(3.0, 2.0, 20_000)
    labels = (rng.random(20_000) < 1 / (1 + np.exp(-(1.5 * scores - 4.0)))) * 1
    points = np.array([0.0, 2.0, 4.0])
    assert platt(scores, labels)(points) == pytest.approx(1 / (1 + np.exp(-(1.5 * points - 4.0))), abs=0.02)


def test_the_lexicon_speaks_in_probabilities() -> None:
    good, nothing, bad = lexicon()(["a wonderful film", "a film", "a horrible film"])
    assert bad < nothing == 0.5 < good <= 1


def test_what_is_judged() -> None:
    assert judged("The film", " was warm", "response") == " was warm"
    assert judged("The film", " was warm", "prompt and response") == "The film was warm"


def test_a_text_has_the_score_that_it_has_alone(finished_world: World) -> None:
    reward = load_reward_model(finished_world / "models/reward")
    tokenizer = load_tokenizer(finished_world / "models/reward")
    texts = ["The film was warm.", "I", "My cousin found that the plot was dull at first but bright by the end."] * 30
    scores = text_scores(reward, tokenizer, texts, ended=True)
    for number in (0, 1, 2, 89):
        ids = torch.tensor([[*tokenizer(texts[number])["input_ids"], tokenizer.eos_token_id]])
        with torch.no_grad():
            assert scores[number] == pytest.approx(float(reward_scores(reward, ids, torch.ones_like(ids))), abs=1e-5)
    assert text_scores(reward, tokenizer, texts[:1], ended=False) != scores[0]
    assert np.isfinite(text_scores(reward, tokenizer, ["long " * 2000], ended=True)).all(), "cut to the model's positions"


def test_any_text_classifier_can_judge(tmp_path: Path) -> None:
    texts = ["The film was warm.", "I", "The plot was dull and long."] * 30
    opinions = []
    for labels in (["NEGATIVE", "POSITIVE"], ["LABEL_0", "LABEL_1"], ["neg", "neutral", "pos"]):
        write_classifier(tmp_path / labels[0], labels)
        opinions.append(classifier_of(str(tmp_path / labels[0]), torch.device("cpu"))(texts))
    assert np.array_equal(opinions[0], opinions[1]), "by custom, LABEL_1 is positive"
    assert len(set(opinions[0].round(5))) == 3
    assert opinions[0][:3] == pytest.approx(classifier_of(str(tmp_path / "NEGATIVE"), torch.device("cpu"))(texts[:3]), abs=1e-5)
    assert ((opinions[2] > 0) & (opinions[2] < 1)).all()


def test_the_order_of_labels_is_read_not_guessed(tmp_path: Path) -> None:
    write_classifier(tmp_path / "one", ["negative", "positive"])
    write_classifier(tmp_path / "other", ["positive", "negative"])
    one, other = (classifier_of(str(tmp_path / name), torch.device("cpu"))(["The film was warm."]) for name in ("one", "other"))
    assert one == pytest.approx(1 - other, abs=1e-6)


def test_a_classifier_without_sides_is_refused(tmp_path: Path) -> None:
    write_classifier(tmp_path / "stars", ["1 star", "2 stars", "3 stars"])
    with pytest.raises(StageError, match="has the labels 1 star, 2 stars, 3 stars; a judge needs one that begins with pos"):
        classifier_of(str(tmp_path / "stars"), torch.device("cpu"))


def test_a_language_model_is_no_judge(tmp_path: Path) -> None:
    write_llama(tmp_path / "llama")
    assert load_policy(tmp_path / "llama")
    with pytest.raises(StageError, match=r"llama lacks weights, such as score\.weight"):
        classifier_of(str(tmp_path / "llama"), torch.device("cpu"))
