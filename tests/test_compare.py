"""Comparisons of the models on your own prompts: intervals, and cautions where the prompts show nothing."""

import json
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from transformers import PreTrainedTokenizerFast

from rlhf_sentiment.api.comparison import Comparison
from rlhf_sentiment.evaluation.compare import means_of, prompt_perplexities, too_few, unlike_test_prompts
from rlhf_sentiment.settings.whole import Params

from .conftest import RunStage, World, assert_names, tiny_params


def test_perplexity_of_a_prompt_is_that_of_all_tokens_but_the_first(
    tiny_model: Callable[..., Any], letters: PreTrainedTokenizerFast
) -> None:
    import torch

    model = tiny_model("causal")
    prompts = ["a film", "b", "another longer prompt", "x" * 65]
    found = prompt_perplexities(model, letters, [{"prompt": prompt} for prompt in prompts])
    assert np.isnan(found[[1, 3]]).all(), "one token has no context, and 65 have no position"
    for row in (0, 2):
        ids = torch.tensor([letters(prompts[row])["input_ids"]])
        with torch.no_grad():
            loss = model(ids, labels=ids).loss  # of transformers: all tokens but the first
        assert found[row] == pytest.approx(math.exp(loss), rel=1e-4)


def test_a_prompt_is_unlike_the_test_prompts_above_ten_times_their_quantile() -> None:
    test = np.array([1.0] * 198 + [5.0, 900.0])  # one outlier in two hundred does not move the limit
    assert unlike_test_prompts(["near"], np.array([49.9]), test) == []
    (said,) = unlike_test_prompts(["near", "f" * 60], np.array([49.9, 50.1]), test)
    assert_names(said, "1 of 2", "fff...fff", "(50)", "5.0")
    assert "near" not in said
    (said,) = unlike_test_prompts(list("abcd"), np.array([1e3, 1e4, 1e5, 1e6]), test)
    assert_names(said, "4 of 4", "'d' (1,000,000), 'c' (100,000), 'b' (10,000)", "1 more")
    assert unlike_test_prompts(["one"], np.array([np.nan]), test) == [], "a prompt of one token"
    assert unlike_test_prompts(["far"], np.array([1e9]), np.array([np.nan])) == [], "nothing to compare with"


def test_few_prompts_are_too_few_for_a_claim() -> None:
    assert_names(too_few(1), "1 prompt ", "no interval", "30")
    assert_names(too_few(29), "29 prompts", "30")
    assert too_few(30) == []


def answers(scores: dict[str, list[float]]) -> pd.DataFrame:
    """Return the table of answers of one model, with P(positive) of each answer to each prompt."""
    rows = [(prompt, "base", place, one) for prompt, several in scores.items() for place, one in enumerate(several)]
    return pd.DataFrame(rows, columns=["prompt", "model", "sample", "positive"])


def test_an_interval_is_over_prompts_and_one_prompt_has_none() -> None:
    settings = Params.model_validate(tiny_params()).evaluate
    one = means_of(answers({"a": [0.2, 0.6, 0.7]}), settings, 1)["base"]
    assert (one["ci_low"], one["ci_high"], one["prompts"], one["samples"]) == (None, None, 1, 3)
    assert (one["mean_positive"], one["positive_ratio"]) == (pytest.approx(0.5), pytest.approx(2 / 3))
    rng = np.random.default_rng(0)
    spread = {str(k): [float(rng.random())] * 2 for k in range(40)}
    several = means_of(answers(spread), settings, 1)["base"]
    assert several["ci_low"] < several["mean_positive"] < several["ci_high"]
    more = means_of(answers({prompt: both * 8 for prompt, both in spread.items()}), settings, 1)["base"]
    assert more["ci_low"] == pytest.approx(several["ci_low"]), "more answers to the same prompts do not count as more prompts"
    shown = repr(Comparison(answers(spread), {"base": several}))
    assert_names(shown, "mean_positive", "ci_low", "ci_high", "base")
    assert max(map(len, shown.splitlines())) <= 100, "no column is left out"


def test_the_figures_of_the_report_are_shown_in_full() -> None:
    figures = {f"figure_{number}": [0.25, 0.5] for number in range(30)}
    shown = repr(Comparison(pd.DataFrame(figures, index=["base", "rlhf"]), {}))
    assert shown.split()[:5] == ["base", "rlhf", "figure_0", "0.250", "0.500"]
    assert "figure_29" in shown
    assert "..." not in shown


def test_compare_warns_of_one_prompt_and_shows_the_interval_of_two(finished_world: World, run_stage: RunStage) -> None:
    one = run_stage(finished_world, "compare", "--prompt", "The film was", "--samples", "2")
    assert_names(one.err, "compare: warning: ", "1 prompt ", "no interval")
    assert "none" in one.out
    two = run_stage(finished_world, "compare", "--prompt", "The film was", "--prompt", "I saw a film")
    assert_names(two.err, "compare: warning: ", "2 prompts")
    assert_names(two.out, "95% interval", " to ")


def test_prompts_unlike_the_training_texts_are_named(
    world: World, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny base model knows too little for a factor of ten. Its texts have none of these characters."""
    monkeypatch.setattr("rlhf_sentiment.evaluation.compare.FAR", 1.0)
    own = ["@@ ## %%", "~~ || ^^", "{{ ++ }}"]
    rows = map(json.loads, (world / "data/prepared/prompts.jsonl").read_text().splitlines())
    test = [row["prompt"] for row in rows if row["split"] == "test"]
    said = run_stage(world, "compare", *(part for prompt in own for part in ("--prompt", prompt))).err
    assert_names(said, "3 of 3", *(f"'{prompt}' (" for prompt in own))
    monkeypatch.chdir(world.folder)
    from rlhf_sentiment import RLHFConfig, run_evaluation

    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        answers = run_evaluation(RLHFConfig(), custom_prompts=own)
    assert_names([str(one.message) for one in warned], "3 of 3", *own, "3 prompts")
    assert answers.figures["rlhf"].keys() >= {"ci_low", "ci_high"}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        run_evaluation(RLHFConfig(), test * 2)
    assert not any("unlike" in str(one.message) for one in warned)
