"""Text to tokens and back, for tokenizers that differ in what they put before a text."""

from pathlib import Path

import pytest
from transformers import GPT2Tokenizer, PreTrainedTokenizerBase

from rlhf_sentiment.models import load_policy, load_tokenizer
from rlhf_sentiment.reward import encode_pairs
from rlhf_sentiment.settings.reward import RewardSettings
from rlhf_sentiment.tokens import decode_response, encode, encode_example, encode_pair

from .conftest import SHARED, write_llama

PROMPT, RESPONSE = "The acting was", " anything but dull, and I laughed."


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    write_llama(folder)
    return folder


@pytest.fixture(params=["llama", "gpt2-tokenizer", "stories260K", "imdb-gpt2-10m"])
def tokenizer(request: pytest.FixtureRequest, llama: Path) -> PreTrainedTokenizerBase:
    if request.param == "llama":
        return load_tokenizer(llama)
    folder = SHARED / "models" / request.param
    if not folder.is_dir():
        pytest.skip("needs the models of ../shared (or RLHF_SHARED)")
    if request.param == "gpt2-tokenizer":
        return GPT2Tokenizer(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    return load_tokenizer(folder)


def test_prompt_and_response_are_the_whole_text(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt, response = encode_pair(tokenizer, PROMPT, RESPONSE)
    assert prompt == encode(tokenizer, PROMPT)
    assert prompt + response == encode(tokenizer, PROMPT + RESPONSE)
    assert tokenizer.decode(prompt + response, skip_special_tokens=True) == PROMPT + RESPONSE
    assert decode_response(tokenizer, prompt, response) == RESPONSE
    assert decode_response(tokenizer, prompt, [*response, tokenizer.eos_token_id]) == RESPONSE


def test_a_text_starts_with_bos_where_the_tokenizer_has_that_habit(tokenizer: PreTrainedTokenizerBase, llama: Path) -> None:
    ids = encode(tokenizer, PROMPT)
    habit = tokenizer(PROMPT)["input_ids"][0] == tokenizer.bos_token_id
    assert habit == (ids[0] == tokenizer.bos_token_id)
    assert ids.count(tokenizer.bos_token_id) == int(habit)
    assert ids == tokenizer(PROMPT)["input_ids"], "neither of these tokenizers ends a text with EOS"


def test_the_made_llama_has_that_habit_and_no_pad_token(llama: Path) -> None:
    tokenizer = load_tokenizer(llama)
    assert encode(tokenizer, PROMPT)[0] == tokenizer.bos_token_id == 1
    assert tokenizer.pad_token_id is None
    apart = tokenizer(RESPONSE, add_special_tokens=False)["input_ids"]
    assert apart != encode_pair(tokenizer, PROMPT, RESPONSE)[1], "alone, it has a second space"
    assert load_policy(llama).config.model_type == "llama"


def test_where_tokens_merge_over_the_border_the_prompt_stays_as_it_is(tokenizer: PreTrainedTokenizerBase) -> None:
    text = PROMPT + RESPONSE
    whole, starts = encode(tokenizer, text), {n: encode(tokenizer, text[:n]) for n in range(1, len(text))}
    merging = [n for n, start in starts.items() if whole[: len(start)] != start]
    assert merging, "the test needs a border that falls into a token"
    for n in merging:
        prompt, response = encode_pair(tokenizer, text[:n], text[n:])
        assert prompt == starts[n]
        written = decode_response(tokenizer, prompt, response)
        assert written.strip() == text[n:].strip()  # alone, a SentencePiece tokenizer puts a space before it


@pytest.mark.parametrize(("cut", "kept", "last"), [(True, 2, False), (False, 1, True)])
def test_a_long_pair_is_cut_without_eos_or_left_out(llama: Path, cut: bool, kept: int, last: bool) -> None:
    tokenizer = load_tokenizer(llama)
    settings = RewardSettings(epochs=1, batch_size=1, learning_rate=1e-3, max_length=12, cut=cut)
    short = {"prompt": "The plot was", "chosen": " fresh.", "rejected": " dull.", "split": "train"}
    long = {"prompt": "The plot was", "chosen": " fresh.", "rejected": RESPONSE, "split": "train"}
    other = {**short, "split": "validation"}
    columns, too_long = encode_pairs([short, long, other], "train", tokenizer, settings)
    assert too_long == 1
    assert len(columns["chosen_ids"]) == len(columns["rejected_ids"]) == kept
    assert columns["rejected_ids"][0][-1] == tokenizer.eos_token_id
    assert (columns["rejected_ids"][-1][-1] == tokenizer.eos_token_id) == last
    assert max(map(len, columns["rejected_ids"])) <= 12


def test_an_example_is_cut_to_what_the_prompt_leaves(llama: Path) -> None:
    tokenizer = load_tokenizer(llama)
    prompt, response = encode_pair(tokenizer, PROMPT, RESPONSE)
    whole = len(prompt) + len(response) + 1  # EOS
    assert encode_example(tokenizer, PROMPT, RESPONSE, whole, cut=True) == (prompt, [*response, tokenizer.eos_token_id], True)
    assert encode_example(tokenizer, PROMPT, RESPONSE, whole - 1, cut=True) == (prompt, response, False)
    assert encode_example(tokenizer, PROMPT, RESPONSE, whole - 3, cut=True) == (prompt, response[:-2], False)
    assert encode_example(tokenizer, PROMPT, RESPONSE, whole - 1, cut=False) == (prompt, [], False)
    assert encode_example(tokenizer, PROMPT, RESPONSE, len(prompt) - 1, cut=True) == (prompt, [], False), (
        "no room for any of it"
    )
