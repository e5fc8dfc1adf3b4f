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
        ("report_to", "neptune", "or a list of these (got 'neptune')"),
        ("evaluate.judges", ["lexicon"], "evaluate.judges: should begin with classifier"),
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
        ("base.revision", "main", "base.revision belongs to a hub id, and scratch is none; set it to null"),
        ("data.source", "hub", "data.hub.dataset: should name a data set, since data.source is hub"),
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
            "data.corpus and data.prompts should be null",
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
        ("base.heads", 3, "base.width (16) must be a multiple of base.heads (3)"),
        ("ppo.minibatches", 3, "ppo.batch_size (8) must be a multiple of ppo.minibatches (3)"),
        ("ppo.micro_batch_size", 3, "must be a multiple of ppo.micro_batch_size (3)"),
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


def test_all_that_asks_for_too_much_is_in_one_line(tmp_path: Path) -> None:
    tree = changed("evaluate.num_samples", 21)
    tree["ppo"]["batch_size"] = 64
    tree["sft"]["max_length"] = 161
    assert refusal(tmp_path, tree) == (
        "params.yaml: settings: ppo.batch_size (64) must be at most data.prompts_train (32); evaluate.num_samples (21) must be "
        "at most data.prompts_test (20); sft.max_length (161) must be at most base.context (160)"
    )


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
        ("seed: 1\nseed: 2", "params.yaml: not YAML at line 2, column 1: duplicate key seed"),
        ("a: 1\n---\nb: 2", "at line 2, column 1: expected a single document in the stream but found another document"),
        ("seed: 2024-13-45", "at line 1, column 7: '2024-13-45' cannot be read as timestamp"),
        ("seed: !!timestamp x", "at line 1, column 7: 'x' cannot be read as timestamp"),
        ("seed: !!timestamp", "cannot be read as timestamp"),
        ("ppo:\n  steps: !!bool x", "at line 2, column 10: 'x' cannot be read as bool"),
        ("seed: !!int ''", "at line 1, column 7: '' cannot be read as int"),
        ("seed: !!float x", "'x' cannot be read as float"),
        ("seed: !!int [1]", "at line 1, column 7: expected a scalar node, but found sequence"),
        ("seed: !!binary x", "at line 1, column 7: failed to decode base64 data"),
        ("seed: !!omap [1]", "while constructing an ordered map expected a mapping"),
        ("!!set {a, b}", "params.yaml: holds set, not sections"),
        ("!!omap [a: 1]", "params.yaml: holds list, not sections"),
        ("a: !!python/object/apply:os.getcwd []", "params.yaml: not YAML at line 1"),
        ("a: !!python/name:os.system ''", "could not determine a constructor for the tag"),
        ("a: !mine 1", "could not determine a constructor for the tag '!mine'"),
        ("? [a]\n: 1", "at line 1, column 3: the key ['a'] is no word"),
        ("1: 2", "at line 1, column 1: the key 1 is no word"),
        ("on: 2", "the key True is no word; put it in quotes if it is meant as one"),
        ("<<: 1", "at line 1, column 1: `<<` is not read here"),
        ("a: &a {b: 1}\nc:\n  <<: *a", "at line 3, column 3: `<<` is not read here; write the keys out"),
        ("a: &a [*a]", "at line 1, column 4: its aliases lead back to itself"),
        ("a: &a {b: *a}", "its aliases lead back to itself"),
        ("a: *b", "found undefined alias"),
        (f"a: {'[' * 5000}", "params.yaml: not settings: the YAML is nested too deeply"),
        (f"seed: {'1' * 100_000}", "11...11"),
        (f"seed: 0x{'f' * 100_000}", "seed: should be less than 4294967296 (got <int>)"),
        (f"seed: {'1:' * 5000}1", "params.yaml: seed: should be less than 4294967296 (got <int>)"),
        (f"seed: {'1:' * 1000}1.5", "cannot be read as float"),
        ("seed: 1:30", "params.yaml: base: missing"),
        ("seed: \x00", "at line 1, column 7: the character '\\x00' is not allowed"),
        ("seed: 1\nb: \x9b31m", "at line 2, column 4: the character '\\x9b' is not allowed"),
        ("ppo:\n\tsteps: 1", "at line 2, column 1: while scanning for the next token found character '\\t'"),
        (f"a: [{'x, ' * 10_000}]", "more than 10,000 values"),
        ("a: 1\n" * 60_000, "has more than 262,144 bytes"),
    ],
)
def test_a_file_that_is_not_settings_is_refused(tmp_path: Path, text: str, said: str) -> None:
    """Each file gives a message of one line, and YAML without sections one more line for each missing section."""
    message = refusal(tmp_path, text)
    assert said in message
    lines = [line for line in message.splitlines() if not line.endswith(": missing; it has no default")]
    assert len(lines) <= 1
    assert len(message.splitlines()) <= 21
    assert all(line.isprintable() and len(line) < 400 for line in message.splitlines())


def test_aliases_that_multiply_are_refused_before_they_are_written_out(tmp_path: Path) -> None:
    """Nine nested levels of ten aliases give 10^9 values in 300 bytes. The file is refused before its aliases are expanded."""
    names = "abcdefghi"
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]" for before, name in pairwise(names)]
    message = refusal(tmp_path, "\n".join(lines))
    assert message == "params.yaml: not YAML at line 4, column 4: more than 10,000 values, with each alias written out"


def test_an_alias_is_a_value_that_stands_twice(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("a: &one {b: [1, &two x]}\nc: *one\nd: [*two, *two]")
    assert read_yaml(tmp_path / "params.yaml") == {"a": {"b": [1, "x"]}, "c": {"b": [1, "x"]}, "d": ["x", "x"]}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"seed: 1\nb: \xff", "not UTF-8 (byte 0xff at line 2, column 4); save it as UTF-8"),
        ("seed: 1".encode("utf-16"), "not UTF-8 (byte 0xff at line 1, column 1); save it as UTF-8"),
        (b"seed: \xed\xa0\x80", "not UTF-8 (byte 0xed at line 1, column 7)"),
    ],
)
def test_settings_are_in_utf_8(tmp_path: Path, data: bytes, said: str) -> None:
    (tmp_path / "params.yaml").write_bytes(data)
    with pytest.raises(ConfigError, match=re.escape(f"params.yaml: {said}")):
        read_yaml(tmp_path / "params.yaml")


def test_a_byte_order_mark_and_other_line_ends_are_read(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"\xef\xbb\xbfseed: 1\r\nppo: x\r\n")
    assert read_yaml(tmp_path / "params.yaml") == {"seed": 1, "ppo": "x"}


def test_of_a_thousand_faults_twenty_are_told(tmp_path: Path) -> None:
    tree = tiny_params() | {f"key{number}": number for number in range(1000)}
    lines = refusal(tmp_path, tree).splitlines()
    assert len(lines) == 21
    assert lines[0].startswith("params.yaml: key0: unknown key; ")
    assert lines[-1] == "params.yaml: and 980 more"


def test_an_unknown_key_of_a_section_that_may_be_null_is_told_with_those_it_has(tmp_path: Path) -> None:
    labels = {"negative": [0], "positive": [1], "negativ": [2]}
    said = "params.yaml: data.labels.negativ: unknown key; did you mean negative?"
    assert refusal(tmp_path, changed("data.labels", labels)) == said


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


def test_params_that_are_no_file_are_told_with_exit_status_2(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "locked.yaml").write_text("seed: 1")
    (tmp_path / "locked.yaml").chmod(0)
    for name, said in {
        "folder": "Is a directory",
        "pipe": "no ordinary file",
        "none.yaml": "no such file; run from the repository's root or give --params FILE",
        "locked.yaml": "Permission denied",
        "x" * 5000: "File name too long",
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
    assert "ppo.kl_horizon at least ppo.batch_size" in refusal(tmp_path, tree)
