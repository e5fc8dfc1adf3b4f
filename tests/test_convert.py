"""Old settings, files that extend others, and hints: what `check`, `convert`, the stages and RLHFConfig answer."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import rlhf_sentiment
from rlhf_sentiment import ConfigError, RLHFConfig
from rlhf_sentiment.engine.command_line import parser_of
from rlhf_sentiment.engine.hints import command, keys_of
from rlhf_sentiment.engine.params import load, read_yaml
from rlhf_sentiment.engine.renamed import RENAMED, is_old
from rlhf_sentiment.settings.old import RULES, modern
from rlhf_sentiment.settings.whole import Params

from .conftest import ROOT, Ended, RunStage, World, assert_names, the_error

README = (ROOT / "README.md").read_text()
# The settings of the first version.
FIRST = """\
model_name: "distilgpt2"
max_length: 50
temperature: 0.7
top_p: 0.9
batch_size: 16
ppo_epochs: 4
learning_rate: 1.41e-5
reward_model_lr: 5e-5
data_dir: "./data"
model_dir: "./models"
results_dir: "./results"
use_wandb: false
device: "auto"
"""
# The usual keys of trl.
TRL = """\
model_name: gpt2
query_dataset: imdb
num_steps: 200
learning_rate: 1.41e-5
init_kl_coef: 0.2
adap_kl_ctrl: true
target: 6
horizon: 10000
gamma: 1
lam: 0.9
cliprange: .3
cliprange_value: .4
vf_coef: .2
batch_size: 128
mini_batch_size: 16
gradient_accumulation_steps: 2
ppo_epochs: 3
max_new_tokens: 32
seed: 7
num_train_epochs: 2
log_with: tensorboard
bf16: true
optimize_cuda_cache: true
"""
# Keys that trl's PPOConfig writes besides, with mappings and nulls.
DUMP = """\
exp_name: sentiment
tracker_kwargs: {}
accelerator_kwargs: {}
project_kwargs: {a: [1]}
push_to_hub_if_best_kwargs: {}
forward_batch_size: null
world_size: null
max_grad_norm: null
compare_steps: 1
is_encoder_decoder: false
is_peft_model: false
global_backward_batch_size: 16
global_batch_size: 128
score_clip: null
stop_token: eos
local_rollout_forward_batch_size: 64
kl_estimator: k1
push_to_hub: false
save_strategy: steps
eval_strategy: no
optim: adamw_torch
adam_beta1: 0.9
dataloader_num_workers: 0
max_steps: -1
"""


@pytest.fixture
def folder(tmp_path: Path) -> World:
    """Return a folder with the default params.yaml and the profiles."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    (tmp_path / "profiles").symlink_to(ROOT / "profiles")
    return World(tmp_path)


def values(path: Path, *keys: str) -> list[Any]:
    settings: Any = load(Params, path, whole=True)
    found = []
    for key in keys:
        inner = settings
        for part in key.split("."):
            inner = getattr(inner, part)
        found.append(inner)
    return found


def convert_(run_stage: RunStage, folder: World, text: str, status: int = 0) -> Ended:
    (folder / "old.yaml").write_text(text)
    return run_stage(folder, "convert", "old.yaml", "--out", "new.yaml", status=status)


def test_the_table_names_settings_that_exist() -> None:
    known = keys_of(Params)
    assert {key for became in RENAMED.values() for key in became.settings} <= set(known)
    assert all(became.settings or became.note for became in RENAMED.values())
    assert set(RULES) <= set(RENAMED)
    assert not set(RENAMED) & set(Params.model_fields), "a key of today is not an old key"


def test_each_section_is_no_key_of_an_old_file() -> None:
    sections = [name for name in Params.model_fields if any(key.startswith(f"{name}.") for key in keys_of(Params))]
    assert [name for name in sections if is_old({name: 1, "lr": 1})] == []
    assert is_old({"lr": 1, "others": {}})


@pytest.mark.parametrize("text", [FIRST, TRL, TRL + DUMP])
def test_check_names_what_each_old_key_became(folder: World, run_stage: RunStage, text: str) -> None:
    (folder / "old.yaml").write_text(text)
    first, *lines = run_stage(folder, "check", "--params", "old.yaml", status=1).err.splitlines()
    assert_names(first, "check: old.yaml", "stages/convert.py old.yaml")
    old = yaml.safe_load(text)
    assert len(lines) == len(old)
    for line, key in zip(lines, old, strict=True):
        assert_names(line, f"old.yaml: {key}: ", *(RENAMED[key].settings if key in RENAMED else ("same",)))
    assert "unknown" not in "".join(lines)


def test_check_hints_at_an_unknown_key_of_an_old_file_as_convert_does(folder: World, run_stage: RunStage) -> None:
    text = "batch_sizes: 3\nlr: 1e-5\n"
    line = convert_(run_stage, folder, text, status=2).err
    checked = run_stage(folder, "check", "--params", "old.yaml", status=1).err.splitlines()[1]
    for said in (line, checked):
        assert_names(said, "old.yaml: batch_sizes: unknown", "ppo.batch_size")


def test_convert_writes_the_first_versions_settings(folder: World, run_stage: RunStage) -> None:
    said = convert_(run_stage, folder, FIRST).out
    for key in yaml.safe_load(FIRST):
        assert len([line for line in said.splitlines() if line.startswith(f"convert: old.yaml: {key} ")]) == 1
    expected = {
        "base.model": "distilbert/distilgpt2",
        "sft.max_length": 50,
        "reward.max_length": 50,
        "sft.cut": True,
        "ppo.max_new_tokens": 42,
        "generation.max_new_tokens": 42,
        "generation.temperature": 0.7,
        "ppo.temperature": 0.7,
        "generation.top_p": 0.9,
        "ppo.batch_size": 16,
        "ppo.ppo_epochs": 4,
        "ppo.learning_rate": 1.41e-5,
        "reward.learning_rate": 5e-5,
        "report_to": [],
        "device": "auto",
    }
    assert values(folder / "new.yaml", *expected) == list(expected.values())
    same = RLHFConfig.from_file(ROOT / "profiles/distilgpt2-imdb.yaml")
    assert [getattr(same, key) if "." not in key else None for key in ("report_to", "device")] == [[], "auto"]
    assert values(folder / "new.yaml", *expected) == values(ROOT / "profiles/distilgpt2-imdb.yaml", *expected)
    before, after = ((folder / name).read_text().splitlines() for name in ("params.yaml", "new.yaml"))
    assert [line for line in before if "#" in line] == [line for line in after if "#" in line], "comments stay"
    assert run_stage(folder, "check", "--params", "new.yaml").status == 0


def test_convert_writes_the_settings_of_trl(folder: World, run_stage: RunStage) -> None:
    convert_(run_stage, folder, TRL)
    expected = {
        "seed": 7,
        "report_to": ["tensorboard"],
        "base.model": "openai-community/gpt2",
        "base.revision": "main",
        "data.source": "hub",
        "data.hub.dataset": "stanfordnlp/imdb",
        "sft.epochs": 2,
        "reward.epochs": 2,
        "ppo.steps": 200,
        "ppo.batch_size": 128,
        "ppo.minibatches": 4,
        "ppo.micro_batch_size": 16,
        "ppo.ppo_epochs": 3,
        "ppo.kl_coef": 0.2,
        "ppo.kl_target": 6,
        "ppo.kl_horizon": 10_000,
        "ppo.gamma": 1,
        "ppo.lam": 0.9,
        "ppo.clip_range": 0.3,
        "ppo.clip_range_value": 0.4,
        "ppo.vf_coef": 0.2,
        "ppo.max_new_tokens": 32,
        "ppo.dtype": "bfloat16",
        "generation.max_new_tokens": 32,
    }
    assert values(folder / "new.yaml", *expected) == list(expected.values())


def test_convert_takes_a_whole_file_of_trl(folder: World, run_stage: RunStage) -> None:
    text = TRL + DUMP
    said = convert_(run_stage, folder, text).out.splitlines()
    for key in yaml.safe_load(text):
        assert len([line for line in said if line.startswith(f"convert: old.yaml: {key} ")]) == 1, key
    (unset,) = [line for line in said if " max_grad_norm " in line]
    assert_names(unset, "null", "ppo.max_grad_norm", "1.0")
    assert values(folder / "new.yaml", "ppo.max_grad_norm", "ppo.steps", "ppo.minibatches") == [1.0, 200, 4]


def test_convert_says_which_learning_rates_stay(folder: World, run_stage: RunStage) -> None:
    for text, kept in (("", ["sft.learning_rate", "reward.learning_rate"]), ("sft_lr: 1e-4", ["reward.learning_rate"])):
        said = convert_(run_stage, folder, f"num_train_epochs: 3.0\nlearning_rate: 2e-5\n{text}").out
        (folder / "new.yaml").unlink()
        (line,) = [line for line in said.splitlines() if "PPO only" in line]
        assert re.findall(r"\w+\.learning_rate", line) == kept


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model_name", "gpt2-medium"),
        ("model_name", "models/pretrained/mine"),
        ("dataset", "imdb"),
        ("dataset", "Anthropic/hh-rlhf"),
        ("dataset", "data/raw/mine.csv"),
    ],
)
def test_no_note_promises_a_commit(folder: World, run_stage: RunStage, key: str, value: str) -> None:
    (line,) = [line for line in convert_(run_stage, folder, f"{key}: {value}").out.splitlines() if f": {key} " in line]
    note = line.partition("; ")[2]
    assert not re.search(r"\bpins\b|\bthen hub\b", note)
    assert_names(note, "revision", "commit", "branch")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("num_mini_batches: 4", {"ppo.minibatches": 4, "ppo.batch_size": 64}),
        ("log_with: null", {"report_to": []}),
        ("lr: 1e-5\nppo.lam: 0.9", {"ppo.learning_rate": 1e-5, "ppo.lam": 0.9}),
        ("mini_batch_size: null\ngradient_accumulation_steps: null\nsteps: 4", {"ppo.minibatches": 1, "ppo.steps": 4}),
        ("batch_size: 100", {"ppo.batch_size": 100, "ppo.micro_batch_size": 50}),
        ("batch_size: 32", {"ppo.batch_size": 32}),
        ("total_episodes: 640", {"ppo.steps": 10}),
        ("adap_kl_ctrl: false\ntarget: 3", {"ppo.kl_target": None}),
        ("model: ./models/pretrained/mine/", {"base.model": "models/pretrained/mine", "base.revision": None}),
        ("max_length: 40\nmax_new_tokens: 9", {"sft.max_length": 40, "ppo.max_new_tokens": 9}),
        ("Learning-Rate: 1e-5", {"ppo.learning_rate": 1e-5}),
        ("extends: profiles/sst2.yaml\nsteps: 9", {"ppo.steps": 9, "data.hub.dataset": "stanfordnlp/sst2"}),
        ("extends: profiles/sst2.yaml\nnum_steps: 9\nmodel: distilbert/distilgpt2", {"base.model": "distilbert/distilgpt2"}),
    ],
)
def test_values_of_old_keys(folder: World, run_stage: RunStage, text: str, expected: dict[str, Any]) -> None:
    convert_(run_stage, folder, text)
    assert values(folder / "new.yaml", *expected) == list(expected.values())


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("batch_size: many", ("batch_size", "ppo.batch_size", "'many'")),
        ("learning_rate: 3", ("learning_rate", "ppo.learning_rate", "got 3")),
        ("temperature: -1", ("temperature", "generation.temperature", "got -1")),
        ("use_wandb: maybe", ("use_wandb", "true or false", "'maybe'")),
        ("max_length: long", ("max_length", "whole number", "'long'")),
        ("max_length: 500", ("max_length", "sft.max_length (500)", "base.context (128)")),
        ("num_samples: 700", ("num_samples", "evaluate.num_samples (700)", "data.prompts_test (600)")),
        *(
            (f"model_name: {local}", ("model_name", f"'{local}'", "models/pretrained/NAME"))
            for local in ("./mine", "models/sft", "./models/mine", "/abs/path", "../x", "~/x")
        ),
        ("steps: 1\nfoo: 3", ("foo", "unknown", "leave it out")),
        ("steps: 1\nextend: profiles/sst2.yaml", ("extend", "extends?")),
        ("steps: 1\nExtends: profiles/sst2.yaml", ("Extends", "extends?")),
        ("steps: 1\nppo.stepz: 3", ("ppo.stepz", "ppo.steps?")),
        ("model_name: 3", ("model_name", "got 3")),
        ("steps: 1\nbatch_sizes: 3", ("batch_sizes", "unknown", "ppo.batch_size")),
        ("steps: 1\nnum_steps: 2", ("num_steps", "ppo.steps", "steps")),
        ("steps: 1\ndevice: gpu", ("device", "'gpu'")),
        ("batch_size: 16\nmini_batch_size: 3", ("mini_batch_size", "3", "16")),
        ("extends: none.yaml\nsteps: 1", ("none.yaml", "no such file")),
        ("", ("empty",)),
        ("- 1", ("list", "sections")),
        ("steps: [", ("line 1",)),
    ],
)
def test_a_wrong_old_file_is_refused_in_one_line(folder: World, run_stage: RunStage, text: str, named: tuple[str, ...]) -> None:
    ended = convert_(run_stage, folder, text, status=2)
    lines = ended.err.splitlines()
    if text.startswith("temperature"):  # it became two settings
        assert_names(lines.pop(0), "old.yaml", "temperature", "ppo.temperature")
    (line,) = lines
    assert_names(line, "convert: ", *(("old.yaml",) if "extends" not in text else ()), *named)
    assert ended.out == ""
    assert not (folder / "new.yaml").exists()


def test_files_that_are_not_text_or_absent_are_refused(folder: World, run_stage: RunStage) -> None:
    (folder / "old.yaml").write_bytes(b"steps: \xff")
    for name, named in (("old.yaml", "UTF-8"), ("none.yaml", "no such file")):
        for command_ in (["convert", name, "--out", "new.yaml"], ["check", "--params", name]):
            assert_names(the_error(command_[0], run_stage(folder, *command_, status=2).err), name, named)
    assert not (folder / "new.yaml").exists()


def test_wandb_is_written_with_a_warning_where_it_is_not_installed(
    folder: World, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlhf_sentiment.engine.trackers.find_spec", lambda name: None)
    ended = convert_(run_stage, folder, "use_wandb: true")
    assert_names(ended.err, "warning: old.yaml", "report_to", "wandb", "`make trackers`")
    assert read_yaml(folder / "new.yaml")["report_to"] == "wandb"


def test_an_existing_file_is_replaced_only_when_asked(folder: World, run_stage: RunStage) -> None:
    (folder / "old.yaml").write_text(FIRST)
    before = (folder / "params.yaml").read_text()
    ended = run_stage(folder, "convert", "old.yaml", "--out", "params.yaml", status=2)
    assert_names(ended.err, "params.yaml", "--force")
    assert (folder / "params.yaml").read_text() == before
    for expected in ("params.yaml.old", "params.yaml.old2"):
        name = "old.yaml" if expected.endswith("old") else "profiles/sst2.yaml"
        replaced = (folder / "params.yaml").read_text()
        assert expected in run_stage(folder, "convert", name, "--out", "params.yaml", "--force").out
        assert (folder / expected).read_text() == replaced
    assert (folder / "params.yaml").read_text() == (ROOT / "profiles/sst2.yaml").read_text()
    run_stage(folder, "convert", "profiles/sst2.yaml", "--out", "params.yaml", "--force")
    assert not (folder / "params.yaml.old3").exists(), "the content is the same"
    for out in ("profiles", "none/new.yaml"):
        assert_names(run_stage(folder, "convert", "old.yaml", "--out", out, "--force", status=2).err, "--out", out)


def test_a_file_extends_another(folder: World, run_stage: RunStage) -> None:
    (folder / "part").mkdir()
    (folder / "part/one.yaml").write_text("extends: ../params.yaml\nseed: 4\nppo: {steps: 5}\ndata: {columns: {text: x}}\n")
    (folder / "two.yaml").write_text("extends: part/one.yaml\nppo: {steps: 6, lam: 0.5}\ndata: {columns: {label: y}}\n")
    keys = ("seed", "ppo.steps", "ppo.lam", "ppo.gamma", "data.columns")
    assert values(folder / "part/one.yaml", *keys) == [4, 5, 0.95, 1.0, {"text": "x"}]
    assert values(folder / "two.yaml", *keys) == [4, 6, 0.5, 1.0, {"label": "y"}]
    assert run_stage(folder, "check", "--params", "two.yaml").status == 0
    config = RLHFConfig.from_file(folder / "two.yaml", **{"ppo.lam": 0.6})
    assert (config.seed, config.ppo.steps, config.ppo.lam) == (4, 6, 0.6)
    said = run_stage(folder, "convert", "two.yaml", "--out", "whole.yaml").out
    assert_names(said, "ppo.steps is 6, not 30", "seed is 4, not 1")
    assert "extends" not in read_yaml(folder / "whole.yaml")
    assert values(folder / "whole.yaml", *keys) == [4, 6, 0.5, 1.0, {"label": "y"}]


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({"a": "extends: b.yaml", "b": "extends: a.yaml\nseed: 1"}, ("b.yaml", "extends", "a.yaml", "again")),
        ({"a": "extends: a.yaml"}, ("a.yaml", "extends", "again")),
        ({"a": "extends: ./none.yaml"}, ("a.yaml", "extends", "none.yaml", "no such file")),
        ({"a": "extends: [params.yaml]"}, ("a.yaml", "extends", "['params.yaml']")),
        ({"a": 'extends: "a\\0b"'}, ("a.yaml", "extends", "no such file")),
        ({"a": "extends:"}, ("a.yaml", "extends", "None")),
        ({"a": "extends: profiles"}, ("profiles", "directory")),
        ({"a": "extends: b.yaml\nseed: 1", "b": "extends: params.yaml\nppo: {stepz: 1}"}, ("b.yaml: ppo.stepz", "ppo.steps?")),
        ({"a": "extends: b.yaml\nseed: x", "b": "extends: params.yaml\nseed: 1"}, ("a.yaml: seed", "'x'")),
        ({"a": "extends: params.yaml", "params": "extends: b.yaml", "b": "seed: 1"}, ("params.yaml", "extends", "convert.py")),
    ],
)
def test_a_file_that_cannot_extend_is_refused_in_one_line(
    folder: World, run_stage: RunStage, files: dict[str, str], named: tuple[str, ...]
) -> None:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    assert_names(the_error("check", run_stage(folder, "check", "--params", "a.yaml", status=2).err), *named)


def test_params_yaml_with_extends_is_refused_and_can_be_completed(folder: World, run_stage: RunStage) -> None:
    (folder / "params.yaml").rename(folder / "mine.yaml")
    (folder / "params.yaml").write_text("extends: mine.yaml\nseed: 3\n")
    advice = the_error("check", run_stage(folder, "check", status=2).err)
    commands = re.findall(r"`python stages/(\w+)\.py ([^`]+)`", advice)
    assert len(commands) == 1
    run_stage(folder, commands[0][0], *commands[0][1].split())
    assert run_stage(folder, "check").status == 0
    assert values(folder / "params.yaml", "seed") == [3]


@pytest.mark.parametrize(
    ("stage", "options", "said"),
    [
        ("ppo", "--steps 100", ["-S ppo.steps=100"]),
        ("ppo", "--steps=100 --batch-size 16", ["-S ppo.steps=100", "-S ppo.batch_size=16"]),
        ("evaluate", "--num-samples 10", ["-S evaluate.num_samples=10"]),
        ("sample", "--num-samples 10", ["-S evaluate.num_samples=10"]),
        ("sft", "--learning-rate 1e-4 --seed 3", ["-S sft.learning_rate=1e-4", "-S seed=3"]),
        ("reward", "--reward-model-lr 1e-4", ["-S reward.learning_rate=1e-4"]),
        ("judge", "--ngrams 2", ["-S judge.ngrams=2"]),
        ("prepare", "--seed 2", ["-S data.seed=2"]),
        ("base", "--layers", ["-S base.layers=VALUE"]),
        ("check", "--use-wandb true", ["-S report_to=wandb"]),
        ("ppo", "--use_wandb", ["-S report_to=wandb"]),
        ("ppo", "--use-wandb=false", ["-S report_to=none"]),
        ("ppo", "--data-dir ./data", ["--data-dir", "data.source"]),
        ("ppo", "--config custom.yaml", ["--params FILE"]),
        ("sft", "--lr 3", ["-S sft.learning_rate=3"]),
        ("reward", "--lr 3", ["-S reward.learning_rate=3"]),
        ("ppo", "--lr 3", ["-S ppo.learning_rate=3"]),
        ("judge", "--lr 3", ["-S ppo.learning_rate=3"]),
        ("ppo", "--bogus 3", ["--bogus"]),
        ("prepare", "--preview many", ["--preview", "'many'"]),
    ],
)
def test_an_option_that_is_a_setting_is_answered_with_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], stage: str, options: str, said: list[str]
) -> None:
    monkeypatch.setattr("sys.argv", [f"stages/{stage}.py", *options.split()])
    items = {"base": ["models/base"]} if stage == "sample" else ()
    with pytest.raises(SystemExit) as stopped:
        parser_of(stage, "", items, (), has_preview=stage == "prepare").parse_args()
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert_names(line, f"stages/{stage}.py", *said)
    assert ("dvc exp run" in line) is said[0].startswith("-S")


def test_the_script_of_a_stage_answers_so(run_stage: RunStage) -> None:
    ended = run_stage(World(ROOT), "check", "--num-samples", "10", status=2)
    assert_names(the_error("python stages/check.py", ended.err), "dvc exp run -S evaluate.num_samples=10")


def test_each_setting_of_a_section_is_an_option_that_is_answered() -> None:
    tree = read_yaml(ROOT / "params.yaml")
    for section, inner in tree.items():
        names = [name for name in inner if not isinstance(inner[name], dict)] if isinstance(inner, dict) else [section]
        words = [f"--{name.replace('_', '-')}=1" for name in names]
        answer = command(section, words, ROOT / "params.yaml") or ""
        keys = [f"{section}.{name}" if isinstance(inner, dict) else section for name in names]
        assert re.findall(r"-S ([\w.]+)=1", answer) == keys


@pytest.mark.parametrize(
    ("name", "now"),
    [
        ("temperature", "generation.temperature"),
        ("use_wandb", "report_to"),
        ("model_name", "base.model"),
        ("batch_size", "ppo.batch_size"),
        ("data_dir", "data.source"),
        ("num_samples", "evaluate.num_samples"),
        ("pppo", " ppo?"),
    ],
)
def test_an_old_name_in_python_is_answered_with_the_setting(name: str, now: str) -> None:
    config = RLHFConfig()
    with pytest.raises(AttributeError) as error:
        getattr(config, name)
    assert_names(error.value, name, now)
    with pytest.raises(AttributeError) as error:
        setattr(config, name, 1)
    assert_names(error.value, name, now)
    with pytest.raises(ConfigError) as refused:
        RLHFConfig(**{name: 1})
    assert_names(refused.value, name, now)
    assert not hasattr(config, name)


def test_an_unknown_name_of_a_section_is_answered_with_its_key() -> None:
    with pytest.raises(AttributeError, match="learning_rate"):
        RLHFConfig().ppo.lr  # type: ignore[attr-defined]  # noqa: B018


def test_an_old_file_in_python_names_what_each_key_became(tmp_path: Path) -> None:
    (tmp_path / "old.yaml").write_text(FIRST)
    with pytest.raises(ConfigError) as error:
        RLHFConfig.from_file(tmp_path / "old.yaml")
    assert len(str(error.value).splitlines()) == 1 + len(yaml.safe_load(FIRST))


def test_each_old_key_converts_its_own_value() -> None:
    """Each key of the table gives settings of the table, for one value that fits or does not."""
    base = read_yaml(ROOT / "params.yaml")
    for key, became in RENAMED.items():
        done = modern({key: 2}, base)
        assert done.lines or done.faults
        if became.settings and not done.faults and key != "gradient_accumulation_steps":
            assert set(became.settings) & set(done.values) or key in ("bf16",), key


@pytest.mark.parametrize(
    ("old", "arithmetic"),
    [
        ({"bf16": True}, "fast"),
        ({"bf16": False}, None),
        ({"device": "cuda"}, "fast"),
        ({"device": "cpu"}, None),
        ({"model_name": "gpt2"}, "fast"),
        ({"model_name": "scratch"}, None),
    ],
)
def test_old_settings_that_need_fast_arithmetic_get_it(old: dict[str, Any], arithmetic: str | None) -> None:
    done = modern(old, read_yaml(ROOT / "params.yaml"))
    assert done.values.get("arithmetic") == arithmetic
    assert done.values.get("threads") == ("auto" if arithmetic else None)
    assert any("arithmetic becomes fast" in line for line in done.lines) == bool(arithmetic)


def test_the_readme_names_todays_imports_and_files() -> None:
    table = README.split("Old imports and files:")[1].split("Old settings:")[0]
    rows = re.findall(r"^\| `(from [^`]+)` \| `([^`]+)` \|$", table, re.MULTILINE)
    assert [old.split()[1] for old, _ in rows] == ["config", "reward", "data_processor"]
    assert all(new.startswith("from rlhf_sentiment import ") for _, new in rows)
    assert {new.split()[-1] for _, new in rows} <= set(rlhf_sentiment.__all__)
    paths = re.findall(r"`((?:stages|metrics|plots)/[\w/.]*|dvc\.yaml|params\.yaml)`", table)
    assert len(paths) >= 10
    assert [path for path in paths if not (ROOT / path).exists()] == []
    assert "cp " not in README, "a command that replaces params.yaml unasked"


def test_convert_has_help(run_stage: RunStage) -> None:
    assert_names(run_stage(World(ROOT), "convert", "--help").out, "--out", "--force")
