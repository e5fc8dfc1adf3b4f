"""A file of a user that no setting names makes no stage stale. A change of a named file reruns the stage that reads it."""

import copy
import hashlib
import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from rlhf_sentiment.settings import whole

from .closure import ROOT, pipeline
from .conftest import RunStage, World, checkout
from .test_inputs import bring, settings

READERS = ("prepare", "base", "sample", "evaluate")


def records(world: World) -> dict[str, dict[str, dict[str, str]]]:
    """Return the record of each stage that reads files of users: value of a setting -> path -> hash."""
    return {reader: json.loads((world / f"data/hashes/{reader}.json").read_text()) for reader in READERS}


def bring_local_data(world: World, shared: Path) -> None:
    """Run `make local-data` with a small folder in place of ../shared, and write a file of prompts."""
    for name in ("data/imdb/train.jsonl.gz", "data/hh-rlhf/test.jsonl.gz", "models/imdb-gpt2-10m/a", "models/stories260K/b"):
        (shared / name).parent.mkdir(parents=True)
        (shared / name).write_text(name)
    world.run("make", "local-data", f"SHARED={shared}")
    (world / "prompts/unnamed.txt").write_text("The film was\n")


def test_a_record_has_what_the_settings_name_and_nothing_else(tmp_path: Path, run_stage: RunStage) -> None:
    tree = settings()
    tree["data"].update(source="data/raw/a*", corpus="data/raw/half/", prompts="data/raw/none.txt")
    tree["judge"]["source"] = "data/raw/[a]"
    tree["evaluate"]["judges"] = ["classifier", "models/pretrained/group", "owner/name@" + "0" * 40]
    world = checkout(tmp_path / "repository", tree)
    bring(world)
    for name in ("data/raw/[a]/train.jsonl", "data/raw/alone.jsonl.dvc"):
        (world / name).parent.mkdir(exist_ok=True)
        (world / name).write_text(name)
    for stage in ("check", "hashes"):
        run_stage(world, stage)
    found = records(world)
    assert {reader: {value: list(paths) for value, paths in record.items()} for reader, record in found.items()} == {
        "prepare": {
            "data/raw/a*": ["data/raw/alone.jsonl"],
            "data/raw/[a]": ["data/raw/[a]"],
            "data/raw/half": ["data/raw/half"],
            "data/raw/none.txt": [],
        },
        "base": {"models/pretrained/mine": ["models/pretrained/mine"]},
        "sample": {"prompts/mine.txt": ["prompts/mine.txt"]},
        "evaluate": {"models/pretrained/group": ["models/pretrained/group"]},
    }
    hashed = hashlib.md5(b"data/raw/alone.jsonl", usedforsecurity=False).hexdigest()
    assert found["prepare"]["data/raw/a*"]["data/raw/alone.jsonl"] == hashed

    (world / "data/raw/unnamed.csv").write_text("text\n")
    (world / "models/pretrained/unnamed").mkdir()
    run_stage(world, "hashes")
    assert records(world) == found
    (world / "data/raw/half/train.jsonl").write_text("{}")  # inside a named folder
    run_stage(world, "hashes")
    changed = records(world)
    assert changed["prepare"].pop("data/raw/half") != found["prepare"].pop("data/raw/half")
    assert changed == found


def test_every_setting_that_can_name_a_file_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting counts if it accepts a path of users and refuses other text."""
    monkeypatch.chdir(ROOT)
    tree = settings()
    tree["evaluate"]["prompts_file"] = None

    def accepts(section: str, key: str, value: str) -> bool:
        changed = copy.deepcopy(tree)
        changed[section][key] = ["classifier", value] if isinstance(tree[section][key], list) else value
        try:
            whole.Params.model_validate(changed)
        except ValidationError:
            return False
        return True

    keys = [(section, key) for section, inner in tree.items() if isinstance(inner, dict) for key in inner]
    paths = ("data/raw/a.jsonl", "models/pretrained/a", "prompts/everyday.txt")
    naming = {f"{section}.{key}" for section, key in keys if any(accepts(section, key, path) for path in paths)}
    free = {f"{section}.{key}" for section, key in keys if accepts(section, key, "any other text")}
    assert naming - free == {*pipeline()["hashes"]["params"]}


def test_what_no_setting_names_makes_nothing_stale(world: World, tmp_path: Path) -> None:
    bring_local_data(world, tmp_path / "shared")
    assert json.loads(world.run("dvc", "status", "--json")).keys() == {"hashes"}
    assert world.stages_run(world.run("dvc", "repro")) == ["hashes"]
    assert world.run("git", "status", "--short") == " M dvc.lock\n?? prompts/unnamed.txt\n"
    assert world.run("dvc", "status") == "Data and pipelines are up to date.\n"


@pytest.mark.thorough
def test_what_a_setting_names_reruns_its_stage(tmp_path: Path) -> None:
    world = checkout(tmp_path / "repository", settings())
    bring(world)

    def ran(*command: str) -> list[str]:
        return world.stages_run(world.run("dvc", *(command or ("repro",)), "prepare", "base"))

    assert ran() == ["check", "hashes", "prepare", "base"]
    world.run("dvc", "add", "data/raw/mine", "models/pretrained/mine")
    assert ran() == ["hashes"], "DVC wrote files next to them"
    bring_local_data(world, tmp_path / "shared")
    assert ran() == ["hashes"]
    assert ran() == []
    with open(world / "data/raw/mine/train.jsonl", "a") as file:
        file.write('{"text": "Nobody in it was awake.", "label": 0}\n')
    assert ran() == ["hashes", "prepare"], "the corpus is as before"
    tokenizer = world / "models/pretrained/mine/tokenizer_config.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    assert ran() == ["hashes", "base"]
    assert ran() == []
    world.commit("edited")
    for place, source in (([], "data/raw/mine/t*.jsonl"), (["--temp"], "data/raw/m*/t*.jsonl")):
        assert ran("exp", "run", *place, "-S", f"data.source={source}")[:3] == ["check", "hashes", "prepare"], source


@pytest.mark.thorough
def test_a_clone_gets_the_files_that_a_stage_needs(tmp_path: Path) -> None:
    """DVC knows that `prepare` needs the added files, because `hashes` depends on the folders that hold them."""
    there = checkout(tmp_path / "there", settings())
    bring(there)
    there.run("dvc", "add", "data/raw/mine", "models/pretrained/mine")
    there.run("dvc", "remote", "add", "-d", "remote", str(tmp_path / "remote"))
    there.run("dvc", "repro", "prepare")
    there.commit("prepared")
    there.run("dvc", "push")
    for name, command in (("one", ["pull", "--with-deps", "prepare"]), ("two", ["repro", "--pull", "prepare"])):
        there.run("git", "clone", "-q", ".", str(tmp_path / name))
        here = World(tmp_path / name)
        here.run("dvc", *command)
        assert (here / "data/raw/mine/train.jsonl").is_file()
        assert "prepare" not in json.loads(here.run("dvc", "status", "--json", "prepare"))
