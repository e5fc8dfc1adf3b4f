"""Profiles set every parameter, and their stages run on models like those of users, such as a Llama without a pad token."""

import copy
import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import prepare
from rlhf_sentiment.data import grammar
from rlhf_sentiment.engine.params import load, read_yaml
from rlhf_sentiment.evaluation.contestants import CONTESTANTS
from rlhf_sentiment.settings.data import DataSettings
from rlhf_sentiment.settings.whole import Params

from .closure import pipeline
from .conftest import ROOT, SHARED, SMALL_DATA, World, assert_names, checkout, prepare_params, write_llama, write_reviews

PROFILES = sorted((ROOT / "profiles").glob("*.yaml"))
# Sizes for a small folder of reviews. All other settings are those of the profile.
SMALL: dict[str, dict[str, Any]] = {
    "data": SMALL_DATA | {"source": "data/raw/made", "prompts_validation": 4},
    "sft": {"epochs": 1},
    "reward": {"epochs": 1},
    "ppo": {"steps": 1, "validation_prompts": 4},
    "evaluate": {"num_samples": 10, "exam_texts": 30, "distinct_tokens": 20, "resamples": 99, "listed_prompts": 3},
}


def small(profile: str, model: str, **ppo: Any) -> dict[str, Any]:
    """Return the profile with small sizes and a local model."""
    tree = copy.deepcopy(read_yaml(ROOT / "profiles" / f"{profile}.yaml"))
    for section, changes in SMALL.items():
        tree[section].update(changes)
    tree["base"].update(model=f"models/pretrained/{model}", revision=None)
    tree["ppo"].update(ppo)
    return tree


def assert_every_stage_ran(world: World, output: str) -> dict[str, Any]:
    assert len(world.stages_run(output)) == len(pipeline())
    result: dict[str, Any] = json.loads((world / "reports/evaluation.json").read_text())
    for model in CONTESTANTS:
        assert result[model]["samples"] == 10
        assert "grammar_parses" not in result[model], "the grammar did not write these texts"
    return result


def test_the_profiles_have_these_names() -> None:
    local = {"imdb-local", "stories-llama", "hh-local"}
    assert {file.stem for file in PROFILES} == local | {
        "distilgpt2-imdb",
        "hh-rlhf",
        "lm-sentiment",
        "sst2",
        "gpt2-imdb",
        "gpt2-medium-lora",
        "qwen-lora",
    }


def written(number: int) -> tuple[str, list[str]]:
    """Return a prompt of the grammar, with a positive and a negative response."""
    rng = random.Random(f"profile/{number}")
    prompt, rule = grammar.write_prompt(rng)
    return f"{number} {prompt}", [
        grammar.write_response(rule, polarity, rng) for polarity in (grammar.POSITIVE, grammar.NEGATIVE)
    ]


def text(prompt: str, sides: list[str], label: int) -> str:
    return f"{prompt}{sides[1 - label]} That was on a Monday."


def chat(prompt: str, said: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": said.strip()}]


# The columns that the data sets on the hub have.
ON_THE_HUB: dict[str, Callable[[int, str, list[str]], dict[str, Any]]] = {
    "distilgpt2-imdb": lambda n, prompt, sides: {"text": text(prompt, sides, n % 2), "label": n % 2},
    "gpt2-imdb": lambda n, prompt, sides: {"text": text(prompt, sides, n % 2), "label": n % 2},
    "gpt2-medium-lora": lambda n, prompt, sides: {"text": text(prompt, sides, n % 2), "label": n % 2},
    "qwen-lora": lambda n, prompt, sides: {
        "prompt": prompt,
        "prompt_id": f"id {n}",
        "chosen": chat(prompt, sides[0]),
        "rejected": chat(prompt, sides[1]),
        "messages": chat(prompt, sides[0]),
        "score_chosen": 8.0,
        "score_rejected": 4.5,
    },
    "sst2": lambda n, prompt, sides: {"idx": n, "sentence": text(prompt, sides, n % 2) + " ", "label": n % 2},
    "lm-sentiment": lambda n, prompt, sides: {"prompt": prompt, "chosen": sides[0], "rejected": sides[1]},
    "hh-rlhf": lambda n, prompt, sides: {
        side: f"\n\nHuman: {prompt}\n\nAssistant: {said.strip()}"
        for side, said in zip(("chosen", "rejected"), sides, strict=True)
    },
}


@pytest.mark.parametrize("profile", ON_THE_HUB)
def test_a_hub_data_set_is_prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, profile: str) -> None:
    """`datasets` loads a local folder with the same name and columns in the same way."""
    monkeypatch.chdir(tmp_path)
    tree = read_yaml(ROOT / "profiles" / f"{profile}.yaml")
    hub, judge = tree["data"]["hub"], tree["judge"]["source"]
    sources = {hub["dataset"]: (profile, hub["train"], hub["test"])} | (
        {judge.split("@")[0]: ("distilgpt2-imdb", "train", "test")} if "@" in judge else {}
    )
    for number, (name, (columns, train, test)) in enumerate(sources.items()):
        Path(name).mkdir(parents=True)
        files = [{"split": split, "path": f"{split}.jsonl"} for split in (train, test)]
        card = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]})
        (Path(name) / "README.md").write_text(f"---\n{card}---\n")
        for split, first, count in ((train, 0, 500), (test, 500, 120)):
            rows = (ON_THE_HUB[columns](n, *written(1000 * number + n)) for n in range(first, first + count))
            (Path(name) / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    small = {key: value for key, value in SMALL["data"].items() if key not in ("source", "prompt_words")}
    data = DataSettings(**tree["data"] | small)
    prepared = prepare.prepare(prepare_params(data, judge))
    assert [fates["rows_kept"] for fates in prepared.figures["files"].values()] == [500, 120] * len(sources)
    shapes = {"lm-sentiment": "preferences", "hh-rlhf": "transcripts", "qwen-lora": "preferences"}
    assert prepared.figures["shape"] == shapes.get(profile, "labelled")
    assert prepared.figures["preferred_for"] == {
        "hh-rlhf": "helpfulness and harmlessness",
        "qwen-lora": "quality in the opinion of GPT-4",
    }.get(profile, "positivity")
    assert all(len(rows) > 0.8 * asked for rows, asked in ((prepared.tables["sft"], 32), (prepared.tables["labelled"], 140)))


@pytest.mark.parametrize("file", PROFILES, ids=lambda file: file.stem)
def test_a_profile_is_valid(file: Path) -> None:
    load(Params, file, whole=True)


def test_distilgpt2_imdb_has_the_original_settings() -> None:
    tree = read_yaml(ROOT / "profiles/distilgpt2-imdb.yaml")
    assert tree["base"]["model"] == "distilbert/distilgpt2"
    assert len(tree["base"]["revision"]) == len(tree["data"]["hub"]["revision"]) == 40
    assert tree["ppo"]["batch_size"] == 16
    assert tree["ppo"]["ppo_epochs"] == 4
    assert tree["ppo"]["learning_rate"] == 1.41e-5
    assert tree["reward"]["learning_rate"] == 5e-5
    assert tree["generation"]["temperature"] == 0.7
    assert tree["generation"]["top_p"] == 0.9
    assert tree["sft"]["max_length"] == tree["reward"]["max_length"] == 50


@pytest.mark.thorough
def test_a_llama_without_a_pad_token_runs_every_stage(tmp_path: Path) -> None:
    tree = small("stories-llama", "llama", batch_size=16, micro_batch_size=8, max_new_tokens=12)
    tree["generation"]["max_new_tokens"] = 12
    world = checkout(tmp_path / "repository", tree)
    write_llama(world / "models/pretrained/llama")
    write_reviews(world / "data/raw/made", train=400, test=80)
    result = assert_every_stage_ran(world, world.run("dvc", "repro"))
    assert json.loads((world / "reports/sft.json").read_text())["rows"] == 32

    from rlhf_sentiment.models.loading import load_policy, load_tokenizer

    tokenizer = load_tokenizer(world / "models/ppo")
    assert tokenizer.pad_token_id == 300 != tokenizer.eos_token_id
    assert load_policy(world / "models/ppo").get_input_embeddings().num_embeddings == 301
    assert result["rlhf"]["response_tokens"] <= 12
    for row in map(json.loads, (world / "data/samples/rlhf.jsonl").read_text().splitlines()):
        assert row["tokens"][0] != tokenizer.bos_token_id

    output = world.run(
        "python", "stages/compare.py", "--prompt", "The film was", "--prompt", "I saw", "--samples", "2", "--csv", "out.csv"
    )
    assert_names(output, "P(positive)", "mean P(positive)", "95% interval")
    for model in CONTESTANTS:  # mean, interval, two prompts and four answers
        assert re.search(rf"^ *{model} +0\.\d\d +0\.\d\d to 0\.\d\d +2 +4 *$", output, re.MULTILINE), output
    assert len((world / "out.csv").read_text().splitlines()) == 1 + 2 * 2 * len(CONTESTANTS)


@pytest.mark.thorough
@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the tokenizer of ../shared (or RLHF_SHARED)")
def test_a_model_of_distilgpt2s_width_runs_every_stage(tmp_path: Path) -> None:
    """The model has random weights, the configuration of distilgpt2 with one of six layers, and the tokenizer of GPT-2."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2Tokenizer

    world = checkout(tmp_path / "repository", small("distilgpt2-imdb", "distilgpt2"))
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(n_layer=1))
    assert model.num_parameters() == 81_912_576 - 5 * 7_087_872
    model.save_pretrained(world / "models/pretrained/distilgpt2")
    folder = SHARED / "models/gpt2-tokenizer"
    GPT2Tokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt")).save_pretrained(
        world / "models/pretrained/distilgpt2"
    )
    write_reviews(world / "data/raw/made", train=400, test=80)
    result = assert_every_stage_ran(world, world.run("dvc", "repro"))
    assert json.loads((world / "models/ppo/config.json").read_text())["vocab_size"] == 50_258, "GPT-2 gets a pad token"
    ppo = json.loads((world / "reports/ppo.json").read_text())
    assert ppo["optimizer_steps"] == 4
    assert ppo["first_ratio_error"] < 1e-4
    # The perplexity of a random model is about the size of its vocabulary.
    assert 10_000 < result["base"]["perplexity"] < 60_000
    assert yaml.safe_load((world / "params.yaml").read_text())["ppo"]["batch_size"] == 16
