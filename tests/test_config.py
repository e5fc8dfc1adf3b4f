"""Settings: what `check` takes and what it refuses, in which words."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhf_sentiment.config import ConfigError, load, read_yaml
from rlhf_sentiment.settings.whole import Params

from .conftest import ROOT, tiny_params


def refusal(tmp_path: Path, tree: Any) -> str:
    file = tmp_path / "params.yaml"
    file.write_text(tree if isinstance(tree, str) else yaml.safe_dump(tree))
    with pytest.raises(ConfigError) as error:
        load(Params, file, whole=True)
    return str(error.value).replace(f"{file}", "params.yaml")


def changed(key: str, value: Any) -> dict[str, Any]:
    tree = tiny_params()
    *sections, last = key.split(".")
    inner = tree
    for section in sections:
        inner = inner[section]
    inner[last] = value
    return tree


@pytest.mark.parametrize("text", ["1e-05", "1E-5", "1.0e-5", "1.e-5", "+1e-05"])
def test_a_number_as_dvc_writes_it_is_a_number(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(f"rate: {text}")
    rate = read_yaml(tmp_path / "params.yaml")["rate"]
    assert isinstance(rate, float)
    assert math.isclose(rate, 1e-5)


def test_what_is_no_number_stays_text(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: 1e\nb: e5\nc: 1-e5\nd: 2290a62e")
    assert all(isinstance(value, str) for value in read_yaml(tmp_path / "params.yaml").values())


def test_the_committed_params_are_in_order() -> None:
    load(Params, ROOT / "params.yaml", whole=True)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("ppo.stepz", 3, "params.yaml: ppo.stepz: unknown key; did you mean steps?"),
        ("ppoo", {}, "params.yaml: ppoo: unknown key; did you mean ppo?"),
        ("ppo.steps", "many", "params.yaml: ppo.steps: should be a valid integer (got 'many')"),
        ("ppo.steps", 2.5, "ppo.steps: should be a valid integer"),
        ("ppo.steps", True, "ppo.steps: should be a valid integer"),
        ("ppo.steps", 0, "params.yaml: ppo.steps: should be greater than or equal to 1 (got 0)"),
        ("ppo.learning_rate", "1e-5x", "ppo.learning_rate: should be a valid number"),
        ("ppo.kl_coef", float("nan"), "ppo.kl_coef: should be a finite number"),
        ("ppo", None, "params.yaml: ppo: should be a section with keys of its own (got None)"),
        ("data.sft_rows", 3, "data.sft_rows: should be a multiple of 2 (got 3)"),
        ("report_to", "mlflow", "report_to: should be 'none', 'tensorboard', 'wandb' or 'trackio' (got 'mlflow')"),
        ("report_to", "trackio", "report_to: trackio is not installed; `pip install trackio`, or set report_to: none"),
        ("evaluate.judges", ["lexicon"], "evaluate.judges: should begin with classifier, whose opinion `mean_positive` is"),
        ("evaluate.judges", ["classifier", "lexicon", "lexicon"], "evaluate.judges: should name each judge once"),
        ("evaluate.judges", ["classifier", "models/pretrained/mean"], "evaluate.judges: mean_positive is another figure"),
        ("evaluate.judges", ["classifier", "a/b"], "or a hub id with its commit, OWNER/NAME@COMMIT (got 'a/b')"),
        (
            "evaluate.prompts_file",
            "/etc/hosts",
            "evaluate.prompts_file: should be prompts/NAME.txt, prompts/NAME.jsonl or null",
        ),
        ("evaluate.prompts_file", "prompts/none.txt", "evaluate.prompts_file: prompts/none.txt: no such file of prompts"),
        ("evaluate.guards.max_klx", 1.0, "evaluate.guards.max_klx: unknown key; did you mean max_kl?"),
        ("evaluate.judged", "whole", "evaluate.judged: should be 'response' or 'prompt and response' (got 'whole')"),
        ("device", "gpu", "device: should be auto, cpu, mps, cuda or cuda:N (got 'gpu')"),
        ("base.model", "../elsewhere", "base.model: should be scratch, models/pretrained/NAME or a hub id"),
        ("base.model", "distilbert/distilgpt2", "base.revision: pin distilbert/distilgpt2 to a commit hash of the hub"),
        ("base.revision", "main", "base.revision is of a hub id, and scratch is none; set it to null"),
        ("data.source", "hub", "data.hub.dataset: name the data set that `data.source: hub` loads"),
        ("data.source", "stanfordnlp/imdb", "data.source: should be synthetic, hub, auto, or a file, folder or glob below"),
        ("data.source", "data/raw/../../secret.jsonl", "below data/raw/ (got 'data/raw/../../secret.jsonl')"),
        (
            "data.source",
            "/etc/passwd",
            "data.source: should be synthetic, hub, auto, or a file, folder or glob below data/raw/",
        ),
        ("data.corpus", "../corpus.txt", "data.corpus: should be a file, folder or glob below data/raw/ (got '../corpus.txt')"),
        (
            "data.prompts",
            "data/raw/a.txt",
            "data.corpus and data.prompts go with other sources than synthetic; set them to null",
        ),
        ("data.hub.dataset", "../imdb", "data.hub.dataset: should be a hub id such as stanfordnlp/imdb (got '../imdb')"),
        ("data.hub.dataset", "json", "data.hub.dataset: should be a hub id such as stanfordnlp/imdb (got 'json')"),
        ("data.hub.folder", "../../outside", "data.hub.folder: should be a folder in the data set (got '../../outside')"),
        ("data.hub.folder", "/outside", "data.hub.folder: should be a folder in the data set (got '/outside')"),
        (
            "data.labels",
            {"negative": [0, "Pos"], "positive": ["pos"]},
            "data.labels: pos cannot mean both negative and positive",
        ),
        ("data.columns.texts", "review", "data.columns.texts"),
        ("data.labels", {"negative": [1], "positive": [1]}, "data.labels: 1 cannot mean both negative and positive"),
        ("data.rating_negative", 7.0, "data.rating_negative (7) must be below data.rating_positive (7)"),
        ("judge.source", "../reviews", "judge.source: should be data, synthetic, a path below data/raw/ or OWNER/NAME@COMMIT"),
        ("judge.source", "data/raw/../x", "judge.source: should be a file, folder or glob below data/raw/"),
        ("judge.source", "stanfordnlp/imdb", "judge.source: should be data, synthetic, a path below data/raw/ or OWNER/NAME@"),
        ("ppo.temperature", 1e-40, "ppo.temperature: "),
        ("data.source", "data/raw", "data.source: should be synthetic, hub, auto, or a file, folder or glob below data/raw/"),
        ("data.labelled_texts", 101, "data.labelled_texts: "),
        ("base.model", "models/pretrained", "base.model: should be scratch, models/pretrained/NAME or a hub id"),
        ("base.heads", 3, "base.width must be a multiple of base.heads, and 16 is not one of 3"),
        ("ppo.minibatches", 3, "ppo.minibatches must divide ppo.batch_size, and 3 does not divide 8"),
        ("ppo.micro_batch_size", 3, "ppo.micro_batch_size must divide the minibatch of 8 responses"),
        ("evaluate.num_samples", 21, "evaluate.num_samples (21) must be at most data.prompts_test (20)"),
        ("ppo.batch_size", 64, "ppo.batch_size (64) must be at most data.prompts_train (32)"),
        ("ppo.validation_prompts", 9, "ppo.validation_prompts (9) must be at most data.prompts_validation (8)"),
        ("ppo.max_new_tokens", 160, "ppo.max_new_tokens + 1 (161) must be at most base.context (160)"),
        ("sft.max_length", 161, "sft.max_length (161) must be at most base.context (160)"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(tmp_path: Path, key: str, value: Any, said: str) -> None:
    message = refusal(tmp_path, changed(key, value))
    assert said in message
    assert len(message.splitlines()) == 1


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    tree = tiny_params()
    del tree["ppo"]["lam"]
    assert refusal(tmp_path, tree) == "params.yaml: ppo.lam: missing; it has no default"


def test_each_fault_has_its_line(tmp_path: Path) -> None:
    tree = changed("ppo.steps", 0)
    tree["seed"] = -1
    assert len(refusal(tmp_path, tree).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ppo: [1, 2", "params.yaml: not YAML at line 1, column"),
        ("just text", "params.yaml: holds str, not sections"),
        ("", "params.yaml: holds NoneType, not sections"),
        ("seed: 1\nseed: 2", "params.yaml: not YAML at line 2, column 1: the key seed stands twice"),
        ("seed: 2024-13-45", "params.yaml: not settings: month must be in 1..12"),
        ("a: !!python/object/apply:os.getcwd []", "params.yaml: not YAML at line 1"),
    ],
)
def test_a_file_that_is_not_settings_is_refused(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load(Params, tmp_path / "none.yaml")


def test_every_key_has_its_manual() -> None:
    """Each line of params.yaml with a key stands below a comment, or below keys that do."""
    covered = False
    for number, line in enumerate((ROOT / "params.yaml").read_text().splitlines(), start=1):
        if not line.strip():
            covered = False
        elif line.lstrip().startswith("#"):
            covered = True
        elif re.match(r"^\w+:$", line):  # a section
            covered = False
        else:
            assert covered, f"params.yaml, line {number}: {line.strip()} has no comment above it"


def test_the_price_of_kl_cannot_lose_its_sign(tmp_path: Path) -> None:
    tree = changed("ppo.kl_target", 3.0)
    tree["ppo"]["kl_horizon"] = 1
    assert "ppo.kl_horizon at least ppo.batch_size" in refusal(tmp_path, tree)
