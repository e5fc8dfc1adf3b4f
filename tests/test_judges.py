"""Calibration and agreement against values worked by hand, Platt scaling, and text classifiers as judges."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2ForSequenceClassification, RobertaConfig, RobertaForSequenceClassification

from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.evaluation.classifier import examine, examine_both, reliability
from rlhf_sentiment.evaluation.judges import agreement, classifier_of, judged, lexicon, platt, text_scores
from rlhf_sentiment.models.forward import reward_scores
from rlhf_sentiment.models.loading import load_policy, load_reward_model, load_tokenizer

from .conftest import World, assert_names, write_classifier, write_llama


def test_calibration_of_a_worked_example() -> None:
    # Bin .1-.2: said .15, was 1/2. Bin .9-1: said .95, was 1. Weighted: (2 x .35 + 2 x .05) / 4.
    positive, labels = np.array([0.15, 0.15, 0.95, 0.95]), np.array([0, 1, 1, 1])
    assert examine(positive, labels) == pytest.approx({"accuracy": 0.75, "ece": 0.2})
    table = reliability(positive, labels)
    assert table["texts"].tolist() == [0, 2, 0, 0, 0, 0, 0, 0, 0, 2]
    assert table["was"].dropna().tolist() == [0.5, 1.0]
    assert examine(np.array([0.0, 1.0]), np.array([0, 1]))["ece"] == 0, "1 belongs to the last bin"
    assert examine(np.array([0.5, 0.5]), np.array([0, 0]))["accuracy"] == 1, "0.5 is not positive"
    both = examine_both(positive, 1 - positive, labels)
    assert both == pytest.approx({"accuracy": 0.75, "ece": 0.2, "accuracy_cut": 0.25, "ece_cut": 0.65})


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


def test_platt_has_no_regularisation() -> None:
    # The shares of positive texts at two scores are 1/4 and 3/4: the maximum likelihood curve goes through both.
    scores, labels = np.array([-1.0] * 4 + [1.0] * 4), np.array([0, 0, 0, 1, 0, 1, 1, 1])
    assert platt(scores, labels)(np.array([-1.0, 1.0])) == pytest.approx([0.25, 0.75], abs=1e-3)


def test_the_lexicon_returns_probabilities() -> None:
    good, nothing, bad = lexicon()(["a wonderful film", "a film", "a horrible film"])
    assert bad < nothing == 0.5 < good <= 1


@pytest.mark.parametrize("text", ["这部电影很好看", "หนังเรื่องนี้แย่มาก", "", "。", "\ufffd"])
def test_the_lexicon_returns_one_half_for_other_languages(text: str) -> None:
    assert lexicon()([text]) == pytest.approx([0.5])


def test_the_judged_text_has_the_prompt_only_if_asked() -> None:
    assert judged("The film", " was warm", "response") == " was warm"
    assert judged("The film", " was warm", "prompt and response") == "The film was warm"


def test_the_score_of_a_text_does_not_depend_on_its_batch(finished_world: World) -> None:
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


@pytest.mark.parametrize("kind", ["gpt2", "roberta"])
def test_a_classifier_with_few_positions_reads_the_beginning(tmp_path: Path, kind: str) -> None:
    """The models are a GPT-2 without a pad token, and a RoBERTa, whose positions begin after the pad id."""
    folder = tmp_path / kind
    write_classifier(folder, ["NEGATIVE", "POSITIVE"])
    size: dict[str, Any] = {"vocab_size": 300, "bos_token_id": 1, "eos_token_id": 2, "id2label": {0: "NEGATIVE", 1: "POSITIVE"}}
    torch.manual_seed(0)
    model: Any
    if kind == "gpt2":
        model = GPT2ForSequenceClassification(GPT2Config(n_positions=32, n_embd=16, n_layer=1, n_head=2, **size))
    else:
        shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        shape |= {"max_position_embeddings": 34, "pad_token_id": 1, "type_vocab_size": 1}
        model = RobertaForSequenceClassification(RobertaConfig(**size | shape))
    model.save_pretrained(folder)
    tokenizer = load_tokenizer(folder)
    if kind == "gpt2":
        tokenizer.pad_token = None
        tokenizer.save_pretrained(folder)
    opinion = classifier_of(str(folder), torch.device("cpu"))
    texts = ["warm " * 500, "warm " * 600, "The film was dull."]
    together = opinion(texts)
    assert together[0] == pytest.approx(together[1], abs=1e-6), "only the beginning is read"
    assert together[2:] == pytest.approx(opinion(texts[2:]), abs=1e-6), "padding changes nothing"


class LoadedError(Exception):
    """An exception that stops a test where it loads a classifier."""


def test_a_hub_classifier_is_loaded_at_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(name: str, device: torch.device, revision: str | None) -> Any:
        asked.append((name, revision))
        raise LoadedError

    monkeypatch.setattr("rlhf_sentiment.evaluation.judges.load_classifier", load)
    for judge in ("owner/name@" + "a" * 40, "models/pretrained/mine"):
        with pytest.raises(LoadedError):
            classifier_of(judge, torch.device("cpu"))
    assert asked == [("owner/name", "a" * 40), ("models/pretrained/mine", None)]


def test_the_positive_label_is_found_by_its_name(tmp_path: Path) -> None:
    write_classifier(tmp_path / "one", ["negative", "positive"])
    write_classifier(tmp_path / "other", ["positive", "negative"])
    one, other = (classifier_of(str(tmp_path / name), torch.device("cpu"))(["The film was warm."]) for name in ("one", "other"))
    assert one == pytest.approx(1 - other, abs=1e-6)


def test_a_classifier_without_positive_and_negative_labels_is_refused(tmp_path: Path) -> None:
    write_classifier(tmp_path / "stars", ["1 star", "2 stars", "3 stars"])
    with pytest.raises(StageError) as error:
        classifier_of(str(tmp_path / "stars"), torch.device("cpu"))
    assert_names(error.value, str(tmp_path / "stars"), "1 star, 2 stars, 3 stars", "pos", "neg")


def test_a_language_model_as_judge_is_refused(tmp_path: Path) -> None:
    write_llama(tmp_path / "llama")
    assert load_policy(tmp_path / "llama")
    with pytest.raises(StageError) as error:
        classifier_of(str(tmp_path / "llama"), torch.device("cpu"))
    assert_names(error.value, str(tmp_path / "llama"), "lacks weights", "score.weight")
