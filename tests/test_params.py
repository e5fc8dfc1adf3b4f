"""Settings: the values that `check` accepts, the values that it refuses, and its messages."""

import ctypes
import math
import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from rlhf_sentiment.engine.errors import ConfigError
from rlhf_sentiment.engine.params import load, read_yaml
from rlhf_sentiment.settings.whole import Params

from .conftest import ROOT, assert_names, tiny_params


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


def test_what_is_not_a_number_stays_text(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: 1e\nb: e5\nc: 1-e5\nd: 2290a62e")
    assert all(isinstance(value, str) for value in read_yaml(tmp_path / "params.yaml").values())


@pytest.mark.parametrize("word", ["y", "N", "yes", "Yes", "NO", "no", "on", "On", "off", "OFF", "tRUE"])
def test_a_word_of_yaml_1_1_stays_a_word(tmp_path: Path, word: str) -> None:
    """DVC reads YAML 1.2, and writes such a word without quotes."""
    (tmp_path / "params.yaml").write_text(f"a: {word}\n{word}: [{word}, x]")
    assert read_yaml(tmp_path / "params.yaml") == {"a": word, word: [word, "x"]}


@pytest.mark.parametrize(
    ("word", "value"), [(each(word), word == "true") for word in ("true", "false") for each in (str, str.title, str.upper)]
)
def test_true_and_false_are_truth_values(tmp_path: Path, word: str, value: bool) -> None:
    (tmp_path / "params.yaml").write_text(f"a: {word}\nb: '{word}'")
    tree = read_yaml(tmp_path / "params.yaml")
    assert tree == {"a": value, "b": word}
    assert tree["a"] is value


def test_the_committed_params_are_in_order() -> None:
    load(Params, ROOT / "params.yaml", whole=True)


# A wrong value at a key, and what its message names: the key, or the settings that disagree, and the value.
WRONG: list[tuple[str, Any, tuple[str, ...]]] = [
    ("ppo.stepz", 3, ("ppo.stepz", "ppo.steps?")),
    ("ppoo", {}, ("ppoo", " ppo?")),
    ("ppo.steps", "many", ("ppo.steps", "integer", "'many'")),
    ("ppo.steps", 2.5, ("ppo.steps", "integer")),
    ("ppo.steps", True, ("ppo.steps", "integer")),
    ("ppo.steps", 0, ("ppo.steps", "1", "got 0")),
    ("ppo.learning_rate", "1e-5x", ("ppo.learning_rate", "number")),
    ("ppo.kl_coef", float("nan"), ("ppo.kl_coef", "finite")),
    ("ppo", None, ("ppo", "section", "None")),
    ("data.sft_rows", 3, ("data.sft_rows", "multiple of 2", "got 3")),
    ("report_to", "neptune", ("report_to", "tensorboard", "list", "'neptune'")),
    ("evaluate.judges", ["lexicon"], ("evaluate.judges", "classifier")),
    ("evaluate.judges", ["classifier", "lexicon", "lexicon"], ("evaluate.judges", "once")),
    ("evaluate.judges", ["classifier", "models/pretrained/mean"], ("evaluate.judges", "mean_positive")),
    ("evaluate.judges", ["classifier", "a/b"], ("evaluate.judges", "OWNER/NAME@COMMIT", "'a/b'")),
    ("evaluate.prompts_file", "/etc/hosts", ("evaluate.prompts_file", "prompts/NAME.txt")),
    ("evaluate.prompts_file", "prompts/none.txt", ("evaluate.prompts_file", "prompts/none.txt", "no such file")),
    ("evaluate.guards.max_klx", 1.0, ("evaluate.guards.max_klx", "evaluate.guards.max_kl?")),
    ("evaluate.judged", "whole", ("evaluate.judged", "'prompt and response'", "'whole'")),
    ("device", "gpu", ("device", "cuda:N", "'gpu'")),
    ("base.model", "../elsewhere", ("base.model", "models/pretrained/NAME")),
    ("base.model", "distilbert/distilgpt2", ("base.revision", "distilbert/distilgpt2", "commit")),
    ("base.revision", "main", ("base.revision", "scratch", "empty")),
    ("data.source", "hub", ("data.hub.dataset", "data.source")),
    ("data.source", "stanfordnlp/imdb", ("data.source", "data/raw/")),
    ("data.source", "data/raw/../../secret.jsonl", ("data.source", "data/raw/", "'data/raw/../../secret.jsonl'")),
    ("data.source", "/etc/passwd", ("data.source", "data/raw/")),
    ("data.corpus", "../corpus.txt", ("data.corpus", "data/raw/", "'../corpus.txt'")),
    ("data.prompts", "data/raw/a.txt", ("data.prompts", "empty", "data.source")),
    ("data.hub.dataset", "../imdb", ("data.hub.dataset", "hub id", "'../imdb'")),
    ("data.hub.dataset", "json", ("data.hub.dataset", "hub id", "'json'")),
    ("data.hub.folder", "../../outside", ("data.hub.folder", "'../../outside'")),
    ("data.hub.folder", "/outside", ("data.hub.folder", "'/outside'")),
    ("data.labels", {"negative": [0, "Pos"], "positive": ["pos"]}, ("data.labels", "pos", "both")),
    ("data.columns.texts", "review", ("data.columns.texts",)),
    ("data.labels", {"negative": [1], "positive": [1]}, ("data.labels", "1", "both")),
    ("data.labels", {"negative": [0], "positive": [1], "negativ": [2]}, ("data.labels.negativ", "data.labels.negative?")),
    ("data.rating_negative", 7.0, ("data.rating_negative", "data.rating_positive", "(7)")),
    ("judge.source", "../reviews", ("judge.source", "data/raw/", "OWNER/NAME@COMMIT")),
    ("judge.source", "data/raw/../x", ("judge.source", "data/raw/")),
    ("judge.source", "stanfordnlp/imdb", ("judge.source", "OWNER/NAME@COMMIT")),
    ("ppo.temperature", 1e-40, ("ppo.temperature",)),
    ("data.source", "data/raw", ("data.source", "data/raw/")),
    ("data.labelled_texts", 101, ("data.labelled_texts",)),
    ("base.model", "models/pretrained", ("base.model", "models/pretrained/NAME")),
    ("base.heads", 3, ("base.width (16)", "base.heads (3)")),
    ("ppo.frozen_dtype", "float16", ("ppo.frozen_dtype", "'float32' or 'bfloat16'", "'float16'")),
    ("ppo.frozen_dtype", "bfloat16", ("ppo.frozen_dtype", "arithmetic: fast")),
    ("ppo.gradient_checkpointing", "yes", ("ppo.gradient_checkpointing", "true or false", "'yes'")),
    ("ppo.minibatches", 3, ("ppo.batch_size (8)", "ppo.minibatches (3)")),
    ("ppo.micro_batch_size", 3, ("ppo.micro_batch_size (3)",)),
    ("evaluate.num_samples", 21, ("evaluate.num_samples (21)", "data.prompts_test (20)")),
    ("evaluate.split", "validation", ("evaluate.num_samples (20)", "data.prompts_validation (8)")),
    ("sft.cut", "no", ("sft.cut", "true or false", "'no'")),
    ("evaluate.split", "train", ("evaluate.split", "'test' or 'validation'", "'train'")),
    ("ppo.batch_size", 64, ("ppo.batch_size (64)", "data.prompts_train (32)")),
    ("ppo.validation_prompts", 9, ("ppo.validation_prompts (9)", "data.prompts_validation (8)")),
    ("ppo.max_new_tokens", 160, ("ppo.max_new_tokens + 1 (161)", "base.context (160)")),
    ("sft.max_length", 161, ("sft.max_length (161)", "base.context (160)")),
    # Names of other sections, old names and typos.
    ("batch_size", 3, ("batch_size", "ppo.batch_size", "sft.batch_size")),
    ("ppo.num_samples", 3, ("ppo.num_samples", "evaluate.num_samples?")),
    ("ppo.cliprange", 0.2, ("ppo.cliprange", "ppo.clip_range?")),
    ("sft.lr", 1e-4, ("sft.lr", "sft.learning_rate?")),
    ("data_dir", "./data", ("data_dir", "data/raw", "data.source")),
    ("foo", 1, ("foo", "unknown")),
    ("extend", "params.yaml", ("extend", "extends?")),
    ("Extends", "params.yaml", ("Extends", "extends?")),
]


@pytest.mark.parametrize(("key", "value", "named"), WRONG)
def test_a_wrong_setting_is_named_with_what_would_be_right(
    tmp_path: Path, key: str, value: Any, named: tuple[str, ...]
) -> None:
    message = refusal(tmp_path, changed(key, value))
    assert_names(message, "params.yaml: ", *named)
    assert len(message.splitlines()) == 1
    assert "checkpoint_every" not in message, "a hint does not list the sections"


@pytest.mark.parametrize(("value", "names"), [(True, ["wandb"]), (False, [])])
def test_use_wandb_is_read_as_report_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], value: bool, names: list[str]
) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(tiny_params() | {"use_wandb": value}))
    assert load(Params, file, whole=True).report_to == names
    assert_names(capsys.readouterr().err, "check: warning: ", "params.yaml", "use_wandb", "report_to")
    file.write_text(yaml.safe_dump(tiny_params() | {"use_wandb": "yes please"}))
    with pytest.raises(ConfigError) as error:
        load(Params, file, whole=True)
    assert_names(error.value, "params.yaml", "use_wandb", "report_to")


@pytest.mark.parametrize(
    ("key", "section", "named"),
    [
        ("ppo.steps", "", ("ppo.steps", "`ppo:`", "`steps:`")),
        ("evaluate.guards.max_kl", "", ("`evaluate:`", "`guards:`", "`max_kl:`")),
        ("guards.max_kl", "evaluate", ("evaluate.guards.max_kl", "`guards:`", "`max_kl:`")),
        ("ppo.stepz", "", ("ppo.stepz", "ppo.steps?")),
    ],
)
def test_a_dotted_key_is_answered_with_its_section(tmp_path: Path, key: str, section: str, named: tuple[str, ...]) -> None:
    tree = tiny_params()
    (tree[section] if section else tree)[key] = 8
    (line,) = refusal(tmp_path, tree).splitlines()
    assert_names(line, "params.yaml: ", "unknown", *named)


def test_a_file_of_prompts_has_no_validation_prompts(tmp_path: Path) -> None:
    tree = changed("evaluate.prompts_file", str(Path("prompts/everyday.txt")))
    tree["evaluate"]["split"] = "validation"
    (line,) = refusal(tmp_path, tree).splitlines()
    assert_names(line, "evaluate.split", "must be test", "evaluate.prompts_file", "validation")


def test_all_that_asks_for_too_much_is_in_one_line(tmp_path: Path) -> None:
    tree = changed("evaluate.num_samples", 21)
    tree["ppo"]["batch_size"] = 64
    tree["sft"]["max_length"] = 161
    (line,) = refusal(tmp_path, tree).splitlines()
    assert_names(line, "ppo.batch_size (64)", "data.prompts_train (32)", "evaluate.num_samples (21)", "sft.max_length (161)")


def test_missing_keys_are_named_in_one_line(tmp_path: Path) -> None:
    tree = tiny_params()
    del tree["ppo"]["lam"], tree["evaluate"]
    (line,) = refusal(tmp_path, tree).splitlines()
    assert_names(line, "params.yaml", "missing", "evaluate", "ppo.lam")
    assert "extends" not in line, "params.yaml must be complete"
    (tmp_path / "mine.yaml").write_text("ppo: {steps: 3}")
    with pytest.raises(ConfigError) as error:
        load(Params, tmp_path / "mine.yaml", whole=True)
    (line,) = str(error.value).splitlines()
    assert_names(line, "mine.yaml", "missing", "seed", "extends: params.yaml")


def test_each_fault_has_its_line(tmp_path: Path) -> None:
    tree = changed("ppo.steps", 0)
    tree["seed"] = -1
    assert len(refusal(tmp_path, tree).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("ppo: [1, 2", ("line 1, column",)),
        ("just text", ("a str", "sections")),
        ("", ("empty",)),
        ("seed: 1\nseed: 2", ("line 2, column 1", "duplicate", "seed")),
        ("a: 1\n---\nb: 2", ("line 2, column 1", "document")),
        ("seed: 2024-13-45", ("line 1, column 7", "'2024-13-45'", "timestamp")),
        ("seed: !!timestamp x", ("line 1, column 7", "'x'", "timestamp")),
        ("seed: !!timestamp", ("timestamp",)),
        ("ppo:\n  steps: !!bool x", ("line 2, column 10", "'x'", "bool")),
        ("seed: !!int ''", ("line 1, column 7", "int")),
        ("seed: !!float x", ("'x'", "float")),
        ("seed: !!int [1]", ("line 1, column 7", "scalar")),
        ("seed: !!binary x", ("line 1, column 7", "base64")),
        ("seed: !!omap [1]", ("mapping",)),
        ("!!set {a, b}", ("a set", "sections")),
        ("!!omap [a: 1]", ("a list", "sections")),
        ("a: !!python/object/apply:os.getcwd []", ("line 1",)),
        ("a: !!python/name:os.system ''", ("tag",)),
        ("a: !mine 1", ("tag", "'!mine'")),
        ("? [a]\n: 1", ("line 1, column 3", "key ['a']")),
        ("1: 2", ("line 1, column 1", "key 1")),
        ("true: 2", ("key True", "quotes")),
        ("<<: 1", ("line 1, column 1", "`<<`")),
        ("a: &a {b: 1}\nc:\n  <<: *a", ("line 3, column 3", "`<<`")),
        ("a: &a [*a]", ("line 1, column 4", "aliases")),
        ("a: &a {b: *a}", ("aliases",)),
        ("a: *b", ("alias",)),
        (f"a: {'[' * 5000}", ("nested too deeply",)),
        (f"seed: {'1' * 100_000}", ("11...11",)),
        (f"seed: 0x{'f' * 100_000}", ("seed", "4294967296", "<int>")),
        (f"seed: {'1:' * 5000}1", ("seed", "4294967296", "<int>")),
        (f"seed: {'1:' * 1000}1.5", ("float",)),
        ("seed: 1:30", ("base", "missing")),
        ("seed: \x00", ("line 1, column 7", "'\\x00'")),
        ("seed: 1\nb: \x9b31m", ("line 2, column 4", "'\\x9b'")),
        ("ppo:\n\tsteps: 1", ("line 2, column 1", "'\\t'")),
        (f"a: [{'x, ' * 10_000}]", ("10,000 values",)),
        ("a: 1\n" * 60_000, ("262,144 bytes",)),
    ],
)
def test_a_file_that_is_not_settings_is_refused(tmp_path: Path, text: str, named: tuple[str, ...]) -> None:
    """Each file gives a message of one line. YAML without sections gives one more line for all missing keys."""
    message = refusal(tmp_path, text)
    assert_names(message, "params.yaml: ", *named)
    lines = message.splitlines()
    assert len([line for line in lines if "missing" not in line]) <= 1
    assert len(lines) <= 2
    assert all(line.isprintable() and len(line) < 400 for line in lines)


def test_aliases_that_multiply_are_refused_before_they_are_written_out(tmp_path: Path) -> None:
    """Nine nested levels of ten aliases give 10^9 values in 300 bytes. The file is refused before its aliases are expanded."""
    names = "abcdefghi"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in pairwise(names)]
    (message,) = refusal(tmp_path, "\n".join(lines)).splitlines()
    assert_names(message, "params.yaml", "line 4, column 4", "10,000 values")


def test_an_alias_is_a_value_that_stands_twice(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: &one {b: [1, &two x]}\nc: *one\nd: [*two, *two]")
    assert read_yaml(tmp_path / "params.yaml") == {"a": {"b": [1, "x"]}, "c": {"b": [1, "x"]}, "d": ["x", "x"]}


@pytest.mark.parametrize(
    ("data", "place"),
    [
        (b"seed: 1\nb: \xff", "0xff at line 2, column 4"),
        ("seed: 1".encode("utf-16"), "0xff at line 1, column 1"),
        (b"seed: \xed\xa0\x80", "0xed at line 1, column 7"),
    ],
)
def test_settings_are_in_utf_8(tmp_path: Path, data: bytes, place: str) -> None:
    (tmp_path / "params.yaml").write_bytes(data)
    with pytest.raises(ConfigError) as error:
        read_yaml(tmp_path / "params.yaml")
    assert_names(error.value, "params.yaml", "UTF-8", place)


def test_a_byte_order_mark_and_other_line_ends_are_read(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"\xef\xbb\xbfseed: 1\r\nppo: x\r\n")
    assert read_yaml(tmp_path / "params.yaml") == {"seed": 1, "ppo": "x"}


def test_of_a_thousand_faults_twenty_are_listed(tmp_path: Path) -> None:
    tree = tiny_params() | {f"key{number}": number for number in range(1000)}
    lines = refusal(tmp_path, tree).splitlines()
    assert len(lines) == 21
    assert_names(lines[0], "params.yaml", "key0", "unknown")
    assert_names(lines[-1], "params.yaml", "980")


def run_check(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the stage `check` in another folder, without root's right to read every file."""

    def give_up_privileges() -> None:
        if sys.platform == "linux":  # PR_CAPBSET_DROP of CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH
            for capability in (1, 2):
                ctypes.CDLL(None).prctl(24, capability)

    command = [sys.executable, str(ROOT / "stages/check.py"), *arguments]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=100, preexec_fn=give_up_privileges
    )


def test_params_that_are_not_a_file_give_exit_status_2(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "locked.yaml").write_text("seed: 1")
    (tmp_path / "locked.yaml").chmod(0)
    for name, said in {
        "folder": "directory",
        "pipe": "no ordinary file",
        "none.yaml": "no such file",
        "params.yaml": "--params FILE",
        "locked.yaml": "denied",
        "x" * 5000: "too long",
        "\x1b[31m\n\u202ered": "no such file",
    }.items():
        done = run_check(tmp_path, "--params", name)
        assert (done.returncode, done.stdout) == (2, "")
        (line,) = done.stderr.split("\n")[:-1]
        assert said in line
        assert line.isprintable()
        assert len(line) < 400
    assert not (tmp_path / "data").exists()


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        load(Params, tmp_path / "none.yaml")


def test_every_key_has_its_manual() -> None:
    """Each key of params.yaml follows a comment, or a key that follows a comment."""
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
    assert_names(refusal(tmp_path, tree), "params.yaml", "ppo.kl_target", "ppo.kl_horizon", "ppo.batch_size")
