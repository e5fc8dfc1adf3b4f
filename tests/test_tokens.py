"""Encoding and decoding, for tokenizers that add different tokens before a text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    GPT2Tokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from base import give_pad_token, train_tokenizer
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.models.loading import load_policy, load_tokenizer
from rlhf_sentiment.models.tokens import decode_response, encode, encode_example, encode_pair, encode_whole
from rlhf_sentiment.reward_model import encode_pairs
from rlhf_sentiment.settings.reward import RewardSettings

from .conftest import SHARED, assert_names, write_llama

PROMPT, RESPONSE = "The acting was", " anything but dull, and I laughed."
ASKED = {"prompt": PROMPT}


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


def test_tokens_of_prompt_and_response_join_to_those_of_the_text(tokenizer: PreTrainedTokenizerBase) -> None:
    prompt, response = encode_pair(tokenizer, PROMPT, RESPONSE)
    assert prompt == encode(tokenizer, PROMPT)
    assert prompt + response == encode(tokenizer, PROMPT + RESPONSE)
    assert tokenizer.decode(prompt + response, skip_special_tokens=True) == PROMPT + RESPONSE
    assert decode_response(tokenizer, prompt, response) == RESPONSE
    assert decode_response(tokenizer, prompt, [*response, tokenizer.eos_token_id]) == RESPONSE


def test_a_text_starts_with_bos_if_the_tokenizer_adds_bos(tokenizer: PreTrainedTokenizerBase, llama: Path) -> None:
    ids = encode(tokenizer, PROMPT)
    adds_bos = tokenizer(PROMPT)["input_ids"][0] == tokenizer.bos_token_id
    assert adds_bos == (ids[0] == tokenizer.bos_token_id)
    assert ids.count(tokenizer.bos_token_id) == int(adds_bos)
    assert ids == tokenizer(PROMPT)["input_ids"], "neither of these tokenizers ends a text with EOS"


def test_the_llama_of_the_tests_adds_bos_and_has_no_pad_token(llama: Path) -> None:
    tokenizer = load_tokenizer(llama)
    assert encode(tokenizer, PROMPT)[0] == tokenizer.bos_token_id == 1
    assert tokenizer.pad_token_id is None
    apart = tokenizer(RESPONSE, add_special_tokens=False)["input_ids"]
    assert apart != encode_pair(tokenizer, PROMPT, RESPONSE)[1], "alone, it has a second space"
    assert load_policy(llama).config.model_type == "llama"


def test_the_prompt_keeps_its_tokens_if_a_token_spans_the_border(tokenizer: PreTrainedTokenizerBase) -> None:
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
    settings = RewardSettings(epochs=1, batch_size=1, learning_rate=1e-3, dtype="float32", max_length=12, cut=cut, lora=None)
    short = {"prompt": "The plot was", "chosen": " fresh.", "rejected": " dull.", "split": "train"}
    long = {"prompt": "The plot was", "chosen": " fresh.", "rejected": RESPONSE, "split": "train"}
    other = {**short, "split": "validation"}
    columns, too_long = encode_pairs([short, long, other], "train", tokenizer, settings, "pairs")
    assert too_long == 1
    assert len(columns["chosen_ids"]) == len(columns["rejected_ids"]) == kept
    assert columns["rejected_ids"][0][-1] == tokenizer.eos_token_id
    assert (columns["rejected_ids"][-1][-1] == tokenizer.eos_token_id) == last
    assert max(map(len, columns["rejected_ids"])) <= 12


def test_an_example_is_cut_to_the_length_that_the_prompt_leaves(llama: Path) -> None:
    tokenizer = load_tokenizer(llama)
    prompt, response = encode_pair(tokenizer, PROMPT, RESPONSE)
    whole = len(prompt) + len(response) + 1  # EOS
    assert encode_example(tokenizer, ASKED, RESPONSE, whole, cut=True, where="") == (
        prompt,
        [*response, tokenizer.eos_token_id],
        True,
    )
    assert encode_example(tokenizer, ASKED, RESPONSE, whole - 1, cut=True, where="") == (prompt, response, False)
    assert encode_example(tokenizer, ASKED, RESPONSE, whole - 3, cut=True, where="") == (prompt, response[:-2], False)
    assert encode_example(tokenizer, ASKED, RESPONSE, whole - 1, cut=False, where="") == (prompt, [], False)
    assert encode_example(tokenizer, ASKED, RESPONSE, len(prompt) - 1, cut=True, where="") == (prompt, [], False), (
        "no room for any of it"
    )


UNKNOWN = "<unk>"
SPECIAL = [UNKNOWN, "<pad>", "</s>", "[gMASK]"]
LETTERS = sorted(set("".join(SPECIAL)) | set("filmwas"))


def words() -> PreTrainedTokenizerBase:
    """Make a tokenizer of whole words. Its vocabulary includes the special tokens."""
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*SPECIAL, "film", "was"])}, unk_token=UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return fast(words)


def pieces() -> PreTrainedTokenizerBase:
    """Make a unigram SentencePiece tokenizer. Its pieces include the special tokens, as in T5."""
    scores = [*((piece, 0.0) for piece in SPECIAL), *((piece, -5.0) for piece in ["▁", *LETTERS])]
    unigram = Tokenizer(models.Unigram(scores, unk_id=0))
    unigram.pre_tokenizer, unigram.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return fast(unigram)


def unmarked() -> PreTrainedTokenizerBase:
    """Make a BPE tokenizer. Its backend treats EOS as an ordinary added token."""
    bpe = Tokenizer(models.BPE({letter: i for i, letter in enumerate(["<unk>", " ", *LETTERS])}, [], unk_token=UNKNOWN))
    bpe.add_tokens([AddedToken(token, special=False) for token in SPECIAL[1:]])
    return fast(bpe)


def bytes_() -> PreTrainedTokenizerBase:
    """Make a byte-level BPE tokenizer, as in GPT-2."""
    return train_tokenizer(["film was"] * 5, 260)


def fast(tokenizer: Tokenizer) -> PreTrainedTokenizerBase:
    unknown, pad, eos, *more = SPECIAL
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token=unknown, pad_token=pad, eos_token=eos, additional_special_tokens=more
    )


@pytest.mark.parametrize("make", [bytes_, unmarked, words, pieces])
def test_text_that_spells_a_special_token_is_not_encoded_as_it(make: Callable[[], PreTrainedTokenizerBase]) -> None:
    tokenizer = make()
    names = [token.content for token in tokenizer.added_tokens_decoder.values() if token.content != "<unk>"]
    special = set(tokenizer.convert_tokens_to_ids(names))
    assert len(special) > 1
    for name in names:
        for text in (f"film {name} was", f"film{name}{name}was", name, f"{name} film"):
            ids = encode(tokenizer, text)
            assert not special & set(ids), (text, ids)
            for prompt, response in ((text, " was"), ("film", text), (f"film {name[:2]}", f"{name[2:]} was")):
                both = encode_pair(tokenizer, prompt, response)
                assert not special & set(both[0] + both[1])
                before, after, _ = encode_example(tokenizer, {"prompt": prompt}, response, 1000, cut=False, where="")
                assert [one for one in before + after if one in special] == [tokenizer.eos_token_id], "the one that ends it"
            assert not special & set(encode_whole(tokenizer, text, 1000))


@pytest.mark.parametrize("make", [bytes_, unmarked])
def test_text_that_spells_a_special_token_is_decoded_unchanged(make: Callable[[], PreTrainedTokenizerBase]) -> None:
    tokenizer = make()
    for text in ("film </s> was", "[gMASK]film", "film<pad>"):
        assert "".join(tokenizer.convert_ids_to_tokens(encode(tokenizer, text))).replace("Ġ", " ") == text


def test_text_that_spells_a_special_token_is_merged_like_other_text() -> None:
    tokenizer = train_tokenizer(["film </s> film"] * 5, 275)
    tokenizer.add_special_tokens({"additional_special_tokens": ["</s>"]})
    assert tokenizer.convert_ids_to_tokens(encode(tokenizer, "film</s>")) == ["film", "</", "s", ">"]


def test_letters_outside_the_vocabulary_become_unknown_tokens(llama: Path) -> None:
    """SentencePiece without bytes does not know "<" and "/", nor other letters outside its training text."""
    tokenizer = load_tokenizer(llama)
    tokens = tokenizer.convert_ids_to_tokens(encode(tokenizer, "film</s>"))
    assert tokens == ["<s>", "▁film", "<unk>", "<unk>", "s", "<unk>"]


def test_a_pad_token_of_one_letter_is_left_out_of_texts() -> None:
    tokenizer = unmarked()
    tokenizer.add_special_tokens({"pad_token": "w"})
    assert tokenizer.convert_ids_to_tokens(encode(tokenizer, "film was")) == ["f", "i", "l", "m", " ", "a", "s"]


@pytest.mark.parametrize(
    ("tokens", "letter"),
    [
        ({"eos_token": "x"}, "'x'"),
        ({"pad_token": "w"}, "'w'"),
        ({"bos_token": "Ċ"}, r"'\n'"),
        ({"sep_token": "."}, "'.'"),
        ({"additional_special_tokens": ["<a>", "e"]}, "'e'"),
    ],
)
def test_a_special_token_that_is_a_letter_is_refused(tokens: dict[str, Any], letter: str) -> None:
    tokenizer = bytes_()
    model = GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=8, n_layer=1, n_head=2, n_positions=32))
    tokenizer.add_special_tokens(tokens)
    with pytest.raises(StageError) as error:
        give_pad_token(model, tokenizer)
    assert_names(error.value, f"special token {letter}", "a letter")


def around(single: str) -> PreTrainedTokenizerBase:
    """Make a byte-level BPE tokenizer that puts special tokens around a text, as `single` says."""
    tokenizer: Any = bytes_()
    names = ["[gMASK]", "<sop>", "[SEP]", "</s>"]
    tokenizer.add_special_tokens({"additional_special_tokens": names})
    special = [(name, tokenizer.convert_tokens_to_ids(name)) for name in names]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=special)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token=names[-1])


@pytest.mark.parametrize(
    ("single", "prefix", "suffix", "end"),
    [
        ("$A", [], [], ["</s>"]),
        ("[gMASK] <sop> $A", ["[gMASK]", "<sop>"], [], ["</s>"]),
        ("$A </s>", [], ["</s>"], ["</s>"]),
        ("<sop> $A [SEP]", ["<sop>"], ["[SEP]"], ["[SEP]", "</s>"]),
        ("<sop> $A [SEP] </s> [SEP]", ["<sop>"], ["[SEP]", "</s>", "[SEP]"], ["[SEP]", "</s>"]),
    ],
)
def test_special_tokens_around_a_text_are_kept(single: str, prefix: list[str], suffix: list[str], end: list[str]) -> None:
    """A prompt has no token after it, because a response follows. An example ends with the tokenizer's tokens and one EOS."""
    tokenizer = around(single)

    def tokens(ids: list[int]) -> list[str]:
        return tokenizer.convert_ids_to_tokens(ids)

    text = tokens(tokenizer("film was", add_special_tokens=False)["input_ids"])
    assert tokens(encode(tokenizer, "film was")) == prefix + text
    assert tokens(encode(tokenizer, "")) == prefix
    before, after, fits = encode_example(tokenizer, {"prompt": "film"}, " was", 100, cut=False, where="")
    assert tokens(before + after) == prefix + text + end
    assert fits
    length = len(prefix + text)
    first, then, _ = encode_example(tokenizer, {"prompt": "film"}, " was", length, cut=True, where="")
    assert tokens(first + then) == prefix + text
    assert (
        tokens(encode_whole(tokenizer, "film was", 100)) == tokens(tokenizer("film was")["input_ids"]) == prefix + text + suffix
    )
    assert tokens(encode_whole(tokenizer, "film was", length + len(suffix) - 1)) == prefix + text[:-1] + suffix
    response = tokenizer("film was", add_special_tokens=False)["input_ids"][len(before) - len(prefix) :]
    assert decode_response(tokenizer, before, response + tokenizer.convert_tokens_to_ids(end)) == " was"


def test_special_tokens_are_found_for_a_tokenizer_without_latin_letters() -> None:
    han = Tokenizer(models.BPE({"<s>": 0, "</s>": 1, "电": 2, "影": 3}, []))
    han.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    bos, eos = "<s>", "</s>"
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=han, bos_token=bos, eos_token=eos)
    assert encode(tokenizer, "电影") == [0, 2, 3]
    assert encode(tokenizer, "a") == [0]


def test_trl_trains_on_the_given_ids(tmp_path: Path) -> None:
    """Both trainers get ids, and train on exactly these ids."""
    tokenizer = bytes_()
    torch.manual_seed(0)
    size = {"vocab_size": len(tokenizer), "n_embd": 8, "n_layer": 1, "n_head": 2, "n_positions": 32, "pad_token_id": 1}
    model = GPT2LMHeadModel(GPT2Config(**size))
    common = {"output_dir": str(tmp_path), "use_cpu": True, "bf16": False, "report_to": "none"}
    rows = Dataset.from_dict({"input_ids": [[5, 6, 7, 0]], "completion_mask": [[0, 1, 1, 1]]})
    sft = SFTTrainer(model, SFTConfig(**common, completion_only_loss=True), train_dataset=rows, processing_class=tokenizer)
    (batch,) = sft.get_train_dataloader()
    assert batch["input_ids"].tolist() == [[5, 6, 7, 0]]
    assert batch["labels"].tolist() == [[-100, 6, 7, 0]]
    pairs = Dataset.from_dict({"chosen_ids": [[5, 6, 0]], "rejected_ids": [[5, 7, 8]]})
    classifier = GPT2ForSequenceClassification(GPT2Config(**size, num_labels=1))
    reward = RewardTrainer(classifier, RewardConfig(**common), train_dataset=pairs, processing_class=tokenizer)
    (batch,) = reward.get_train_dataloader()
    assert batch["input_ids"].tolist() == [[5, 6, 0], [5, 7, 8]]


def test_a_tokenizer_that_encodes_no_text_is_one_line(tmp_path: Path) -> None:
    """The library reads the tokenizer of a Qwen model as byte-level BPE, also where its file has whole words."""
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "w2": 2, "w3": 3}))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    roles = {"eos_token": "</s>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=words, **roles).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}', encoding="utf-8")
    with pytest.raises(StageError) as error:
        encode(load_tokenizer(tmp_path), "w2 w3")
    assert_names(error.value, str(tmp_path), "no tokens", "tokenizer.json", "Qwen2Tokenizer")
