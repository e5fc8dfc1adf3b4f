"""Tiny models for the exact tests, and a tiny world for the tests that run the real scripts.

The tests have three tiers. `make quick` leaves out the tests with the mark `slow`. `make test` leaves out the tests with the
mark `thorough`. `make thorough` runs all tests.
"""

import copy
import hashlib
import json
import os
import random
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import portalocker
import pytest
import yaml

from .closure import pipeline

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "stages"), str(ROOT / "tools")]

from rlhf_sentiment.engine.arithmetic import SET_HERE, Arithmetic, pin, wanted_variables  # noqa: E402 (the path must be set)

# The stages that run in the process of a test compute as `dvc repro` does. Nothing has loaded numpy or torch yet.
PORTABLE = Arithmetic(arithmetic="portable", threads=2)
pin(PORTABLE, "tests")

# Real data and models. Tests that need them are skipped if they are missing.
SHARED = Path(os.environ.get("RLHF_SHARED", ROOT.parent / "shared")).resolve()

# `make thorough` tries so many times as many random cases as `make test`.
FUZZ = int(os.environ.get("RLHF_FUZZ", "1"))

# The commands of `make repro`, which a user runs after a kill.
REPRO = "python stages/mend.py && exec dvc repro"

# The tiny world has ordinary settings with small sizes, so that tests run the production code.
TINY: dict[str, dict[str, Any]] = {
    "checkpoint_every": {"base": 4, "sft": 1, "reward": 1, "ppo": 1},
    "data": {
        "corpus_texts": 300,
        "sft_rows": 64,
        "pairs": 64,
        "pairs_held_out": 16,
        "labelled_texts": 200,
        "labelled_held_out": 60,
        "prompts_train": 32,
        "prompts_validation": 8,
        "prompts_test": 20,
    },
    "base": {"vocab_size": 300, "layers": 1, "width": 16, "heads": 2, "context": 160, "epochs": 1, "batch_size": 32},
    "sft": {"max_length": 160},
    "reward": {"max_length": 160},
    "ppo": {"steps": 2, "batch_size": 8, "micro_batch_size": 4, "ppo_epochs": 2, "max_new_tokens": 12, "validation_prompts": 8},
    "generation": {"max_new_tokens": 12},
    "evaluate": {"num_samples": 20, "exam_texts": 50, "distinct_tokens": 200, "resamples": 199, "listed_prompts": 5},
}

# The section `data` for a small folder of reviews.
SMALL_DATA: dict[str, Any] = {
    "prompt_words": 3,
    "corpus_texts": 8,
    "sft_rows": 32,
    "pairs": 32,
    "pairs_held_out": 4,
    "labelled_texts": 100,
    "labelled_held_out": 40,
    "prompts_train": 32,
    "prompts_test": 10,
}


def tiny_params() -> dict[str, Any]:
    """params.yaml with the tiny world's sizes."""
    tree: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree = copy.deepcopy(tree)
    for section, changes in TINY.items():
        assert changes.keys() <= tree[section].keys()
        tree[section].update(changes)
    return tree


def prepare_params(data: Any, judge: str = "data", **changes: Any) -> Any:
    """Return the settings that `prepare` loads, with the section `data`. `changes` replace counts in `ppo` and `evaluate`."""
    import prepare
    from rlhf_sentiment.settings.evaluate import Asking
    from rlhf_sentiment.settings.judge import JudgeSource
    from rlhf_sentiment.settings.ppo import Prompted

    asked: dict[str, Any] = {"batch_size": 2, "validation_prompts": None, "num_samples": None, "split": "test"}
    asked |= {"prompts_file": None} | changes
    parts = [{name: asked[name] for name in schema.model_fields} for schema in (Prompted, Asking)]
    return prepare.Params(data=data, judge=JudgeSource(source=judge), ppo=Prompted(**parts[0]), evaluate=Asking(**parts[1]))


def write_reviews(folder: Path, train: int, test: int) -> None:
    """Write a folder of labelled reviews with the grammar. All reviews differ, and half have each label."""
    from rlhf_sentiment.data import grammar

    rng = random.Random(0)
    texts: dict[str, int] = {}
    while len(texts) < train + test:
        polarity = (grammar.POSITIVE, grammar.NEGATIVE)[len(texts) % 2]
        review = grammar.write_review(polarity, rng)
        texts[f"{review.prompt}{review.response} {grammar.write_sentence(polarity, rng)}"] = int(polarity == grammar.POSITIVE)
    rows = [json.dumps({"text": text, "label": label}) + "\n" for text, label in texts.items()]
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text("".join(rows[:train]))
    (folder / "test.jsonl").write_text("".join(rows[train:]))


def write_llama(folder: Path) -> None:
    """Write a random Llama of 300 tokens with a SentencePiece tokenizer.

    The tokenizer puts BOS before every text and a space before the first word. It has no pad token.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from rlhf_sentiment.data import grammar

    rng = random.Random(0)
    bpe = Tokenizer(models.BPE(unk_token="<unk>"))  # noqa: S106 (tokens, not passwords)
    bpe.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    bpe.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    bpe.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    sentences = [grammar.write_sentence(polarity, rng) for polarity in (1, -1) for _ in range(300)]
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=list(special.values()), show_progress=False)
    bpe.train_from_iterator(sentences, trainer)
    size = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=300, max_position_embeddings=160, bos_token_id=1, eos_token_id=2, **size)
    LlamaForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=bpe, **special).save_pretrained(folder)


def write_classifier(folder: Path, labels: list[str]) -> None:
    """Write a random text classifier of the shape of `write_llama`."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    write_llama(folder)
    names: dict[int, str] = dict(enumerate(labels))
    options: dict[str, Any] = {"id2label": names, "label2id": {label: i for i, label in names.items()}, "pad_token_id": 2}
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=len(labels), **options)
    model.save_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(folder)


class World:
    """A checkout in a temporary folder, with the commands that users run."""

    def __init__(self, folder: Path, variables: dict[str, str] | None = None) -> None:
        self.folder, self.variables = folder, variables or {}

    def __truediv__(self, path: str) -> Path:
        return self.folder / path

    def environment(self) -> dict[str, str]:
        """Return the environment of a command: this Python first in PATH, and no variables of a dvc or git around the tests.

        The variables of arithmetic are left out too, since a stage must set them itself.
        """
        left_out = {SET_HERE, *wanted_variables(PORTABLE)}
        own = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_"))}
        own = {name: value for name, value in own.items() if name not in left_out}
        own |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "120"} | self.variables
        paths = [path for path in (self.variables.get("PYTHONPATH"), os.environ.get("PYTHONPATH")) if path]
        return own | ({"PYTHONPATH": ":".join(paths)} if paths else {})

    def run(self, *command: str, status: int = 0) -> str:
        """Run a command and return its output. Fail if its exit status differs."""
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
        )
        assert done.returncode == status, f"{' '.join(command)} -> {done.returncode}\n{done.stdout}"
        return done.stdout

    def stages_run(self, output: str) -> list[str]:
        """Return the names of the stages that DVC ran, from its output."""
        return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")]

    def newest(self, stage: str) -> int:
        """Return the step of the newest checkpoint of a stage, or 0 if the stage has none."""
        folders = self.folder.glob(f".checkpoints/{stage}/*/[0-9]*[0-9]")
        return max((int(folder.name) for folder in folders), default=0)

    def set(self, key: str, value: Any) -> None:
        """Change a setting in params.yaml."""
        tree = yaml.safe_load((self / "params.yaml").read_text())
        *sections, last = key.split(".")
        inner = tree
        for section in sections:
            inner = inner[section]
        inner[last] = value
        (self / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))

    def commit(self, message: str) -> None:
        self.run("git", "add", "-A")
        self.run("git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", message)


def outs(world: World, *folders: str) -> dict[str, bytes]:
    """Return the content of every file in some folders of a world, by path."""
    return {
        path.relative_to(world.folder).as_posix(): path.read_bytes()
        for folder in folders
        for path in sorted((world / folder).rglob("*"))
        if path.is_file()
    }


def checkout(folder: Path, params: dict[str, Any], variables: dict[str, str] | None = None) -> World:
    """Make a new repository in `folder` with the files of this one and with `params`.

    Files that a run wrote are left out. The commands of the repository get additional environment variables.
    """
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in listed:
        if (ROOT / name).is_file() and not name.startswith(("metrics/", "plots/", "docs/results/seeds")) and name != "dvc.lock":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    world = World(folder, variables)
    world.run("git", "init", "-q", "-b", "main")
    world.commit("a world")
    return world


def digest(world: World) -> str:
    """Return a hash of all files of a world, except records of how a command ran."""
    hashed = hashlib.sha256()
    for path in sorted(world.folder.rglob("*")):
        name = path.relative_to(world.folder).as_posix()
        if path.is_file() and not name.startswith((".git/", ".dvc/tmp/", "runs/")) and "__pycache__" not in name:
            hashed.update(f"{name} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return hashed.hexdigest()


@pytest.fixture(scope="session")
def finished_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Return the committed tiny world after one `dvc repro`.

    All workers share this world. A test must not change it. The fixture `world` returns a copy.
    """
    temporary = tmp_path_factory.getbasetemp()
    shared = (temporary.parent if "PYTEST_XDIST_WORKER" in os.environ else temporary) / "finished"
    shared.mkdir(exist_ok=True)
    world, said = World(shared / "repository"), shared / "said.txt"
    with portalocker.Lock(shared / "lock", timeout=900):  # one worker makes the world, and the others wait
        if not said.is_file():
            shutil.rmtree(world.folder, ignore_errors=True)  # from a worker that failed to make it
            checkout(world.folder, tiny_params())
            output = world.run("dvc", "repro")
            world.commit("the first run")
            said.write_text(output)
            (shared / "digest").write_text(digest(world))
    world.first_output = said.read_text()  # type: ignore[attr-defined]
    yield world
    assert digest(world) == (shared / "digest").read_text(), "a test changed the finished world, which all tests share"


@pytest.fixture
def world(finished_world: World, tmp_path: Path) -> World:
    """Return a copy of the finished tiny world, which a test may change.

    All files are copied. Hard links would save 0.04 seconds a test, but a write would change the finished world, too.
    """
    folder = tmp_path / "repository"
    shutil.copytree(finished_world.folder, folder, symlinks=True)
    return World(folder)


def run_here(world: World, stage: str, *arguments: str) -> int:
    """Run a stage script in this process, which has already loaded torch, and return its exit status."""
    script = f"stages/{stage}.py"
    with pytest.MonkeyPatch.context() as patched:
        # Changes of a stage to the whole process must not reach the process that runs the tests.
        for name in ("stage.listen", "stage.keep_freed_memory", "arithmetic.pin_for_stage"):
            patched.setattr(f"rlhf_sentiment.engine.{name}", lambda *_: None)
        patched.chdir(world.folder)
        patched.setattr(sys, "argv", [script, *arguments])
        try:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        except SystemExit as ended:
            return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def run_pipeline(world: World) -> None:
    """Run every stage in this process. `dvc repro` takes ten times as long, since each stage imports its libraries again."""
    for stage in pipeline().values():
        _, script, *arguments = stage["cmd"].split()
        assert run_here(world, Path(script).stem, *arguments) == 0, stage["cmd"]


@dataclass
class Ended:
    """The status and output of a stage that ran in the process of its test."""

    status: int
    out: str
    err: str


RunStage = Callable[..., Ended]


@pytest.fixture
def run_stage(capsys: pytest.CaptureFixture[str]) -> RunStage:
    """Return a function that runs a stage script in this process: `run_stage(world, "ppo", "--help")`.

    The function fails if the exit status of the stage is not `status`. None allows every status.
    """

    def run(world: World, stage: str, *arguments: str, status: int | None = 0) -> Ended:
        capsys.readouterr()
        ended = Ended(run_here(world, stage, *arguments), *capsys.readouterr())
        assert status in (None, ended.status), ended
        return ended

    return run


def the_error(stage: str, stderr: str) -> str:
    """Return the line in which a stage says why it failed. Fail at a second line or a traceback."""
    assert "Traceback" not in stderr, stderr
    lines = [line for line in stderr.splitlines() if not re.search(r"\d passed", line)]  # those of a bar
    errors = [line for line in lines if line.startswith(f"{stage}: ") and ": warning: " not in line]
    assert len(errors) == 1, stderr
    return errors[0]


def assert_names(error: object, *parts: str) -> None:
    """Assert that an error contains all `parts`, such as its kind, path, row and key. The rest of its text may change."""
    assert [part for part in parts if part not in str(error)] == [], str(error)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that use the finished world as slow, and put slow tests first.

    Workers begin with equal halves of the list. The first worker makes the finished world, while the other runs quick tests.
    Later one worker takes tests from the other. The last tests are short.
    """
    for item in items:
        if "finished_world" in getattr(item, "fixturenames", ()) or item.get_closest_marker("thorough"):
            item.add_marker("slow")
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def guard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with a module `torch` that ends any Python process that imports it."""
    folder = tmp_path_factory.mktemp("guard")
    said = "a test without the mark `slow` started a process that imports torch: run it in process, or mark the test"
    (folder / "torch.py").write_text(f"import os, sys\nprint({said!r}, file=sys.stderr, flush=True)\nos._exit(99)\n")
    return folder


@pytest.fixture(autouse=True)
def quick_tests_start_no_torch(request: pytest.FixtureRequest, guard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep `make quick` quick: processes started by tests without the mark `slow` import the guard instead of torch."""
    if request.node.get_closest_marker("slow") is None:
        monkeypatch.setenv("PYTHONPATH", str(guard))


@pytest.fixture
def tiny_model() -> Callable[..., Any]:
    """Return a function that makes a random GPT-2 of 40 tokens: `tiny_model("causal")` or `tiny_model("reward")`."""
    import torch
    from transformers import GPT2Config, GPT2ForSequenceClassification, GPT2LMHeadModel

    from rlhf_sentiment.models.loading import made_fast

    def make(kind: str, seed: int = 0, **changes: Any) -> Any:
        torch.manual_seed(seed)
        size = {"vocab_size": 40, "n_positions": 64, "n_embd": 16, "n_layer": 2, "n_head": 2}
        ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
        config = GPT2Config(**size | ids | changes, num_labels=1)
        model = GPT2LMHeadModel(config) if kind == "causal" else GPT2ForSequenceClassification(config)
        # The weights are larger than GPT-2's initial weights, because those give almost uniform distributions.
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(4.0)
        return made_fast(model).eval()

    return make


@pytest.fixture
def letters() -> Any:
    """Return a tokenizer with a token for each small letter and the space, for `tiny_model`."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"</s>": 0, "<pad>": 1} | {letter: k for k, letter in enumerate("abcdefghijklmnopqrstuvwxyz ", start=2)}
    tokens = Tokenizer(models.WordLevel(vocabulary, unk_token="</s>"))  # noqa: S106 (a token, not a password)
    tokens.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokens, eos_token="</s>", pad_token="<pad>", padding_side="left")  # noqa: S106
