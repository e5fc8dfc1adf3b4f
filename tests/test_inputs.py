"""Files that users add: DVC tracks them, and an experiment in a copy reports which files are missing."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from rlhf_sentiment.data.files import files_at
from rlhf_sentiment.data.prompts import read_prompts
from rlhf_sentiment.engine import inputs
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.inputs import require
from rlhf_sentiment.models.loading import load_policy, load_tokenizer

from .conftest import SMALL_DATA, World, assert_names, checkout, outs, the_error, tiny_params, write_llama, write_reviews

PROMPTS = ["The film was", "I saw", "They said"]
# Sizes for a small folder of reviews.
SMALL = SMALL_DATA | {
    "source": "data/raw/mine",
    "prompts_validation": 8,
}
# Added paths: a folder, a file, a deeper path, and every place for files of users.
ADDED = (
    "data/raw/mine",
    "data/raw/alone.jsonl",
    "data/raw/group/deep",
    "data/raw/half/train.jsonl",
    "models/pretrained/mine",
    "models/pretrained/group/deep",
    "prompts/mine.txt",
)


def settings() -> dict[str, Any]:
    """Return the settings of the tiny world for the files that `bring` adds."""
    tree = tiny_params()
    tree["data"].update(SMALL)
    tree["base"].update(model="models/pretrained/mine", revision=None)
    tree["evaluate"].update(prompts_file="prompts/mine.txt", num_samples=3)
    return tree


def bring(world: World) -> dict[str, bytes]:
    """Add files of users to a world, and return the bytes of all files there."""
    write_reviews(world / "data/raw/mine", train=400, test=80)
    write_llama(world / "models/pretrained/mine")
    for name in (
        "data/raw/alone.jsonl",
        "data/raw/group/deep/a",
        "data/raw/half/train.jsonl",
        "models/pretrained/group/deep/b",
    ):
        (world / name).parent.mkdir(parents=True, exist_ok=True)
        (world / name).write_text(name)
    (world / "prompts/mine.txt").write_text("\n".join(PROMPTS))
    return outs(world, *inputs.BROUGHT)


def lacks(output: str) -> str:
    """Return the warnings of `prepare` that an experiment lacks a file."""
    return "".join(line for line in output.splitlines() if line.startswith("prepare: warning: ") and "lacks" in line)


@pytest.mark.slow
def test_files_of_users_are_tracked_and_used(tmp_path: Path) -> None:
    there = checkout(tmp_path / "there", settings())
    brought_there = bring(there)
    there.run("dvc", "add", *ADDED)
    assert there.run("git", "status", "--short", "-uall").count(".dvc\n") == len(ADDED)
    there.run("dvc", "remote", "add", "-d", "remote", str(tmp_path / "remote"))
    there.commit("what people brought")
    there.run("dvc", "push")

    there.run("git", "clone", "-q", ".", str(tmp_path / "here"))
    here = World(tmp_path / "here")
    here.run("dvc", "pull", "-R", *inputs.BROUGHT)
    assert brought_there.items() <= outs(here, *inputs.BROUGHT).items()
    assert here.run("dvc", "status", *(f"{name}.dvc" for name in ADDED)) == "Data and pipelines are up to date.\n"
    said = here.run("dvc", "exp", "run", "--temp", "--name", "used")
    assert len(here.stages_run(said)) == 12
    assert lacks(said) == ""
    here.run("dvc", "exp", "apply", "used")
    assert json.loads((here / "reports/data.json").read_text())["source"] == "data/raw/mine"
    assert json.loads((here / "models/base/config.json").read_text())["model_type"] == "llama"
    tokenizer = load_tokenizer(here / "models/ppo")
    assert tokenizer.pad_token_id == 300 != tokenizer.eos_token_id, "the added tokenizer has no pad token"
    assert load_policy(here / "models/ppo").get_input_embeddings().num_embeddings == 301
    assert [json.loads(line)["prompt"] for line in (here / "data/samples/rlhf.jsonl").open()][::2] == PROMPTS

    here.run("dvc", "gc", "-w", "-f")
    for name in ADDED:
        shutil.rmtree(here / name) if (here / name).is_dir() else (here / name).unlink()
    here.run("dvc", "checkout")
    assert brought_there.items() <= outs(here, *inputs.BROUGHT).items()

    here.commit("a run with it")
    here.run("git", "clone", "-q", ".", str(tmp_path / "fresh"))
    fresh = World(tmp_path / "fresh")
    fresh.run("dvc", "pull", "-R", *inputs.BROUGHT)
    assert fresh.run("dvc", "repro", "--dry", "--allow-missing").endswith("Data and pipelines are up to date.\n")


@pytest.mark.slow
def test_an_experiment_names_the_files_that_it_lacks(tmp_path: Path) -> None:
    """An experiment runs in a copy of the tracked files. A source that was not added is missing."""
    world = checkout(tmp_path / "repository", settings())
    write_reviews(world / "data/raw/mine", train=400, test=80)
    (world / "prompts/mine.txt").write_text("\n".join(PROMPTS))
    said = world.run("dvc", "exp", "run", "--temp", "prepare", status=255)
    assert_names(the_error("check", said), "params.yaml", "evaluate.prompts_file", "prompts/mine.txt", "no such file", "--temp")
    world.run("git", "add", "prompts/mine.txt")  # staged, not committed
    said = world.run("dvc", "exp", "run", "--temp", "prepare", status=255)
    assert_names(said, "prepare: data/raw/mine is missing", "data.source", "--temp")
    assert_names(lacks(said), "data/raw/mine/test.jsonl", "1 more", "`dvc add`")

    world.run("dvc", "add", "data/raw/mine")
    world.run("git", "add", "data/raw/mine.dvc")  # and not the .gitignore that DVC wrote beside it
    assert lacks(world.run("dvc", "exp", "run", "--temp", "prepare")) == ""

    with open(world / "data/raw/mine/train.jsonl", "a") as file:  # tracked, and edited since
        file.write('{"text": "Nobody in it was awake.", "label": 0}\n')
    world.run("dvc", "exp", "run", "--temp", "--name", "edited", "prepare")
    experiment = world.run("git", "for-each-ref", "--format=%(objectname)", "refs/exps/*/*/edited").strip()
    assert '"mine/train_jsonl, read",401\n' in world.run("git", "show", f"{experiment}:plots/rows.csv")

    (world / "data/raw/late").mkdir()
    shutil.copy(world / "data/raw/mine/test.jsonl", world / "data/raw/late/train.jsonl")
    world.set("data.seed", 7)
    assert lacks(world.run("dvc", "exp", "run", "--temp", "prepare")) == "", "no setting names it"
    world.set("data.source", "data/raw/*/*.jsonl")
    said = world.run("dvc", "exp", "run", "--temp", "prepare")
    assert_names(lacks(said), "data/raw/late/train.jsonl", "git", "DVC", "`dvc add`")


def test_dvc_files_are_not_read_as_data(tmp_path: Path) -> None:
    for name in ("train.jsonl", "train.jsonl.dvc", ".gitignore"):
        (tmp_path / name).write_text("{}\n")
    assert [file.name for file in files_at(str(tmp_path), "data.source")] == [str(tmp_path / "train.jsonl")]


def test_only_an_error_in_a_copy_mentions_experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "repository/.dvc/tmp/exps/1"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    asked = (lambda: require(Path("models/pretrained/mine")), lambda: read_prompts("prompts/mine.txt"))
    for root, copied in ((copy, False), (copy / "../../../..", True)):
        monkeypatch.setenv("DVC_ROOT", str(root))
        for ask in (*asked, lambda: files_at("data/raw/mine", "data.source")):
            with pytest.raises(StageError) as refused:
                ask()
            assert ("--temp" in str(refused.value)) == ("`dvc add`" in str(refused.value)) == copied
    monkeypatch.delenv("DVC_ROOT")
    for name in ("models/pretrained/mine.dvc", "data/raw/group.dvc"):
        Path(name).parent.mkdir(parents=True)
        Path(name).touch()
    with pytest.raises(StageError) as refused:
        require(Path("models/pretrained/mine"))
    assert_names(refused.value, "models/pretrained/mine ", "missing", "`dvc pull models/pretrained/mine.dvc`")
    with pytest.raises(StageError) as refused:
        files_at("data/raw/group/deep", "data.source")
    assert_names(refused.value, "data/raw/group/deep ", "missing", "data.source", "`dvc pull data/raw/group.dvc`")
    with pytest.raises(StageError) as refused:
        require(Path("models/pretrained/other"))
    assert_names(refused.value, "models/pretrained/other ", "missing")
    assert "dvc pull" not in str(refused.value), "DVC does not track it"
