"""DVC rewrites files of settings for `dvc exp run -S`. Comments and all other lines stay, however often it does so."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from rlhf_sentiment.engine.params import load, read_yaml
from rlhf_sentiment.settings.edit import differences, edited
from rlhf_sentiment.settings.whole import Params

from .conftest import ROOT, checkout, tiny_params

FILES = [ROOT / "params.yaml", *sorted((ROOT / "profiles").glob("*.yaml"))]
# What an empty key, and a key that may be a list, is set to in turn. Other empty keys are set to text.
VALUES = {
    "report_to": ("[tensorboard,wandb]", "none", "[mlflow]"),
    "data.columns": ("{text: review,preference: [ann,bob]}", "{text: 3}", "{}"),
    "data.labels": ("{negative: [1,2],positive: [4,5]}", "null", "{negative: [bad],positive: [good,fine]}"),
    "data.preference_values": ("{a: [1],b: [2],tie: [0]}", "{a: [x],b: [y],tie: []}", "null"),
    "evaluate.judges": ("[classifier]", "[classifier,reward,a/b]", "[classifier,lexicon]"),
}
SCALARS = {
    "seed": ("7", "8"),
    "device": ("cpu", "cuda:1"),
    "checkpoint_every.ppo": ("null", "10"),
    "data.hub.train": ("'train[:10%]'", "train"),
    "data.corpus_texts": ("0.5", "null", "100"),
    "data.licence": ("'a: b'", "null"),
    "base.learning_rate": ("1.0e-5", "0.003"),
    "sft.cut": ("true", "false"),
    "judge.strength": ("2", "2.5"),
    "ppo.kl_stop": ("null", "30.0"),
    "evaluate.guards.max_perplexity": ("null", "12345.678", "2"),
    "evaluate.guards.max_length": ("100", "null", "2.5"),
    "evaluate.listed_prompts": ("5", "6"),
}


def places(node: yaml.Node | None, above: str = "") -> dict[str, tuple[int, int, yaml.Node]]:
    """Return the first line of each key that is not a section, the line after its value, and the value, by key."""
    assert isinstance(node, yaml.MappingNode)
    found: dict[str, tuple[int, int, yaml.Node]] = {}
    for key, value in node.value:
        name = above + key.value
        if isinstance(value, yaml.MappingNode) and value.value:
            found |= places(value, f"{name}.")
        else:
            last = value.value[-1].end_mark if isinstance(value, yaml.SequenceNode) else value.end_mark
            found[name] = key.start_mark.line, last.line + 1, value
    return found


def override(key: str, value: str) -> list[str]:
    """Return what `-S` needs to set a key. DVC adds to a mapping with `+`, so the mapping is emptied before."""
    return [f"~{key}", f"+{key}={value}"] if key == "data.columns" else [f"{key}={value}"]


def at(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree[part]
    return tree


def assert_only_changes(path: Path, key: str, values: tuple[str, ...]) -> None:
    """Set a key to each value in turn, and assert that all lines before and after it stay."""
    lines = path.read_text().splitlines()
    first, end, _ = places(yaml.compose("\n".join(lines)))[key]
    for value in values:
        apply_overrides(path, override(key, value))
        new = path.read_text().splitlines()
        assert new[:first] == lines[:first], (key, value)
        assert new[len(new) - len(lines[end:]) :] == lines[end:], (key, value)
        inner = new[first : len(new) - len(lines[end:])]
        assert inner[0].strip().startswith(f"{key.rpartition('.')[2]}:"), inner
        assert at(read_yaml(path), key) == yaml.safe_load(value), (key, value)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_dvc_writes_the_file_as_it_is(tmp_path: Path, file: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(file.read_bytes())
    for _ in range(2):
        apply_overrides(path, ["seed=1"])
        assert path.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_each_list_and_each_empty_key_is_set_without_losing_a_line(tmp_path: Path, file: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(file.read_bytes())
    leaves = places(yaml.compose(file.read_text()))
    lists = {key for key, (_, _, value) in leaves.items() if isinstance(value, yaml.CollectionNode)}
    assert lists == {"data.columns", "evaluate.judges"} <= VALUES.keys()
    empty = [key for key, (_, _, value) in leaves.items() if value.tag == "tag:yaml.org,2002:null"]
    assert len(empty) >= 8
    for key in {*VALUES, *empty}:
        assert_only_changes(path, key, VALUES.get(key, ("one", "two")))


@pytest.mark.parametrize("key", SCALARS)
def test_a_value_of_each_kind_is_set_without_losing_a_line(tmp_path: Path, key: str) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes((ROOT / "params.yaml").read_bytes())
    assert_only_changes(path, key, SCALARS[key])


def test_what_convert_writes_stays_as_it_is(tmp_path: Path) -> None:
    """The new values are a list, mappings, empty keys and numbers, in place of values of another kind."""
    path = tmp_path / "params.yaml"
    old = yaml.safe_load((ROOT / "params.yaml").read_text())
    new = {"report_to": ["mlflow", "wandb"], "checkpoint_every": old["checkpoint_every"] | {"base": None}}
    new["data"] = old["data"] | {
        "columns": {"text": "a", "preference": ["ann", "bob"]},
        "labels": {"negative": ["bad"], "positive": ["good"]},
    }
    new["base"] = old["base"] | {"learning_rate": 1.41e-5}
    new["evaluate"] = old["evaluate"] | {"judges": ["classifier"]}
    text = edited((ROOT / "params.yaml").read_text(), differences(old, new))
    path.write_text(text)
    assert yaml.safe_load(text) == old | new
    comments = [[line for line in each.splitlines() if "#" in line] for each in (text, (ROOT / "params.yaml").read_text())]
    assert comments[0] == comments[1]
    for _ in range(2):
        apply_overrides(path, ["seed=1"])
        assert path.read_text() == text


def test_a_label_that_dvc_writes_is_read_as_dvc_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes((ROOT / "params.yaml").read_bytes())
    apply_overrides(path, ["data.labels={negative: [no,off],positive: [yes,true]}"])
    assert "- no\n" in path.read_text()
    expected = {"negative": ["no", "off"], "positive": ["yes", True]}
    assert read_yaml(path)["data"]["labels"] == YAML(typ="safe").load(path.read_text())["data"]["labels"] == expected


def test_null_and_empty_are_the_same(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    written = text.replace("  kl_target:\n", "  kl_target: null\n")
    assert written != text
    (tmp_path / "params.yaml").write_text(written)
    assert load(Params, tmp_path / "params.yaml") == load(Params, ROOT / "params.yaml")


@pytest.mark.slow
def test_two_experiments_leave_every_comment(tmp_path: Path) -> None:
    """`dvc exp run -S`, twice: the lines that were set change, and no others."""
    world = checkout(tmp_path / "world", tiny_params())
    lines = (ROOT / "params.yaml").read_text().splitlines()
    (world / "params.yaml").write_text("\n".join(lines) + "\n")
    world.commit("all comments")
    changes = ["evaluate.judges=[classifier,reward]", "report_to=[tensorboard]", "ppo.kl_target=6"]
    for steps in (200, 100):
        options = [word for change in [*changes, f"ppo.steps={steps}"] for word in ("-S", change)]
        world.run("dvc", "exp", "run", *options, "check")
    expected = "\n".join(lines).replace("\n  kl_target:\n", "\n  kl_target: 6\n").replace("\n  steps: 30\n", "\n  steps: 100\n")
    expected = expected.replace("\nreport_to: none\n", "\nreport_to:\n- tensorboard\n").replace("  - lexicon\n", "")
    assert (world / "params.yaml").read_text().splitlines() == expected.splitlines()
