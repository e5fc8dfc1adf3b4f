"""Pairs of tokenizer and model that do not belong together, and lengths above the number of positions."""

from pathlib import Path
from typing import Any

import pytest
from transformers import BloomConfig, BloomForCausalLM

from base import PAD, give_pad_token
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.models.loading import load_policy, load_tokenizer, refuse_longer
from rlhf_sentiment.models.tokens import letters

from .conftest import assert_names, write_llama


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    write_llama(folder)
    return folder


def test_a_tokenizer_without_eos_is_refused(llama: Path) -> None:
    tokenizer: Any = load_tokenizer(llama)
    tokenizer.eos_token = None
    with pytest.raises(StageError) as error:
        give_pad_token(load_policy(llama), tokenizer)
    assert_names(error.value, "tokenizer_config.json", "no EOS token")


def test_a_pad_token_that_stands_for_unknown_letters_is_replaced(llama: Path) -> None:
    tokenizer: Any = load_tokenizer(llama)
    tokenizer.pad_token = tokenizer.unk_token
    give_pad_token(load_policy(llama), tokenizer)
    assert tokenizer.pad_token == PAD
    unknown = tokenizer.unk_token_id
    assert letters(tokenizer, "日")[-1] == unknown != tokenizer.pad_token_id


@pytest.mark.parametrize("role", ["eos_token", "pad_token"])
def test_a_special_token_of_one_letter_is_refused(llama: Path, role: str) -> None:
    tokenizer: Any = load_tokenizer(llama)
    tokenizer.add_special_tokens({role: "▁"})
    with pytest.raises(StageError) as error:
        give_pad_token(load_policy(llama), tokenizer)
    assert_names(error.value, "special token '▁'", "a letter")


def test_a_tokenizer_of_another_model_is_refused(llama: Path) -> None:
    tokenizer: Any = load_tokenizer(llama)
    tokenizer.add_tokens(["a token that the model does not know"])
    with pytest.raises(StageError) as error:
        give_pad_token(load_policy(llama), tokenizer)
    assert_names(error.value, "tokenizer", "301 tokens", "300")


def test_a_model_without_a_limit_accepts_any_length() -> None:
    model: Any = BloomForCausalLM(BloomConfig(vocab_size=300, hidden_size=16, n_layer=1, n_head=2))
    refuse_longer(model, 10**6, "sft.max_length")


def test_a_length_beyond_the_models_positions_is_refused(llama: Path) -> None:
    model: Any = load_policy(llama)
    refuse_longer(model, 160, "sft.max_length")
    with pytest.raises(StageError) as error:
        refuse_longer(model, 161, "sft.max_length")
    assert_names(error.value, "sft.max_length", "161", "160 positions")
