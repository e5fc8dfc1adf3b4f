"""Outs that are complete or absent, names of devices, and models and rows that are refused."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, pipeline

from rlhf_sentiment.engine.errors import StageError, one_line_errors
from rlhf_sentiment.engine.inputs import require
from rlhf_sentiment.engine.outputs import writing
from rlhf_sentiment.engine.records import read_rows, rounded, write_metrics, write_rows, write_table
from rlhf_sentiment.models import devices
from rlhf_sentiment.models.devices import resolve_device
from rlhf_sentiment.models.loading import load_policy, load_tokenizer, save
from rlhf_sentiment.models.value_head import Critic

from .conftest import assert_names


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "out.txt").write_text("before")

    def fail() -> None:
        with writing(tmp_path / "out.txt") as aside:
            aside.write_text("half")
            raise RuntimeError("the disk failed")

    with pytest.raises(RuntimeError):
        fail()
    assert (tmp_path / "out.txt").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


def test_writing_a_folder_replaces_all_of_it(tmp_path: Path) -> None:
    for name in ("one", "two"):
        with writing(tmp_path / "deep" / "model") as aside:
            aside.mkdir()
            (aside / name).touch()
    assert [path.name for path in (tmp_path / "deep/model").iterdir()] == ["two"]


def test_a_file_does_not_replace_a_folder(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/thesis.txt").write_text("work")
    with pytest.raises(StageError) as error:
        write_table(tmp_path / "precious", [{"a": 1}])
    assert_names(error.value, str(tmp_path / "precious"), "a folder of this name exists")
    assert (tmp_path / "precious/thesis.txt").read_text() == "work"


@pytest.mark.parametrize(
    ("cuda", "mps", "name", "expected"),
    [
        (True, False, "auto", "cuda"),
        (False, True, "auto", "mps"),
        (False, False, "auto", "cpu"),
        (True, True, "cpu", "cpu"),
        (True, False, "cuda:1", "cuda:1"),
        (False, True, "mps", "mps"),
    ],
)
def test_a_device_name_gives_its_device(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, name: str, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2 if cuda else 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert resolve_device(name) == torch.device(expected)


@pytest.mark.parametrize(
    ("error", "is_of_memory"),
    [
        (MemoryError(), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("could not create a primitive descriptor"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_too_little_memory_is_one_line_and_a_bug_is_a_traceback(
    error: Exception, is_of_memory: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit if is_of_memory else RuntimeError), one_line_errors("ppo", "ppo.batch_size"):
        raise error
    said = "ppo: memory is not enough; lower ppo.batch_size\n"
    assert capsys.readouterr().err.endswith(said) == is_of_memory


@pytest.mark.parametrize("name", ["cuda", "mps", "cuda:2"])
def test_an_absent_device_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: name == "cuda:2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(StageError) as error:
        resolve_device(name)
    assert_names(error.value, f"device: {name} ", "not available", "`device: auto`")


@pytest.mark.parametrize("trunk", ["own", "policy's"])
def test_a_saved_policy_and_critic_are_loaded_unchanged(tiny_model: Callable[..., Any], tmp_path: Path, trunk: str) -> None:
    from base import train_tokenizer

    tokenizer = train_tokenizer(["a warm film", "a dull film"] * 5, 270)
    policy = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=32))
    critic = Critic.from_reward_model(tiny_model("reward")) if trunk == "own" else Critic(16)
    torch.nn.init.normal_(critic.head.weight)
    critic.rescale(0.5, 2.0)
    save(policy, tokenizer, tmp_path / "ppo", critic.own())

    again = Critic.from_reward_model(tiny_model("reward", seed=9)) if trunk == "own" else Critic(16)
    again.load_state_dict(load_file(tmp_path / "ppo/critic.safetensors"))
    for one, other in ((critic, again), (policy, AutoModelForCausalLM.from_pretrained(tmp_path / "ppo"))):
        for name, tensor in one.state_dict().items():
            assert torch.equal(tensor, other.state_dict()[name]), name
    assert load_tokenizer(tmp_path / "ppo")("a warm film")["input_ids"] == tokenizer("a warm film")["input_ids"]
    text = pipeline("text-generation", model=str(tmp_path / "ppo"))("a warm", max_new_tokens=3)[0]["generated_text"]
    assert text.startswith("a warm")


def test_base_gives_the_tokenizer_a_pad_token_that_is_not_eos(tmp_path: Path) -> None:
    from base import give_pad_token, train_tokenizer

    tokenizer = train_tokenizer(["a warm film"] * 5, 270)
    tokenizer.pad_token = tokenizer.eos_token
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=1, n_head=2, n_positions=32))
    give_pad_token(model, tokenizer)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert model.config.pad_token_id == tokenizer.pad_token_id
    assert model.get_input_embeddings().num_embeddings >= len(tokenizer)


def test_the_fused_gelu_equals_the_gelu_of_gpt2(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    tiny_model("causal").save_pretrained(tmp_path)
    model, loaded = GPT2LMHeadModel.from_pretrained(tmp_path), load_policy(tmp_path)
    assert model.config.activation_function == loaded.config.activation_function == "gelu_new"
    kinds = [type(block.mlp.act).__name__ for block in (model.transformer.h[0], loaded.transformer.h[0])]
    assert kinds == ["NewGELUActivation", "GELU"]
    ids = torch.arange(30)[None]
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits, rtol=1e-5, atol=1e-5)


def test_a_loaded_policy_has_dropout_off(tiny_model: Callable[..., Any], tmp_path: Path) -> None:
    tiny_model("causal").save_pretrained(tmp_path)
    loaded = load_policy(tmp_path)
    assert not loaded.training
    assert loaded.dtype == torch.float32


def test_an_incomplete_model_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/sft").mkdir(parents=True)
    (tmp_path / "models/sft/config.json").touch()
    with pytest.raises(StageError) as error:
        require(Path("models/sft"))
    assert_names(error.value, "models/sft", "missing", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def test_written_rows_are_read_unchanged(tmp_path: Path) -> None:
    rows = [{"text": 'שלום 🎬 "quoted"\n', "label": 1}, {"text": "é", "label": 0}]
    write_rows(tmp_path / "rows.jsonl", rows)
    assert read_rows(tmp_path / "rows.jsonl", {"text": str, "label": int}) == rows


def test_metrics_are_rounded_and_finite(tmp_path: Path) -> None:
    assert rounded({"a": 0.123456, "b": [1.00004, 2], "c": "x"}) == {"a": 0.1235, "b": [1.0, 2], "c": "x"}
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_metrics(tmp_path / "metrics.json", {"loss": float("nan")})
    assert not (tmp_path / "metrics.json").exists()


def test_a_carriage_return_does_not_end_a_row_of_a_table(tmp_path: Path) -> None:
    write_table(tmp_path / "table.csv", [{"text": "one\rtwo", "score": 0.5}, {"text": "three", "score": 1.0}])
    with (tmp_path / "table.csv").open(newline="") as file:
        assert list(csv.DictReader(file)) == [{"text": "one\rtwo", "score": "0.5"}, {"text": "three", "score": "1.0"}]


def test_an_absent_number_is_nan_in_a_table(tmp_path: Path) -> None:
    write_table(tmp_path / "table.csv", [{"step": 1, "score": 0.5}, {"step": 2}])
    assert (tmp_path / "table.csv").read_text() == "step,score\n1,0.5\n2,nan\n"


def test_the_same_seed_gives_the_same_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    devices.make_deterministic(3)
    one = torch.rand(2)
    devices.make_deterministic(3)
    assert torch.equal(one, torch.rand(2))
