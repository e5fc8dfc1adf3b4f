"""Text to token ids and back.

A text of a user is letters, also where they spell `<|endoftext|>`: no text becomes a special token. The special tokens in
a sequence are those that the tokenizer itself puts before and after a text, the EOS that ends an example, and those that a
model samples.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from ..engine.errors import StageError


class Habits(NamedTuple):
    """What a tokenizer does of its own accord.

    prefix, suffix: ids that it puts before and after a text, such as a BOS, GLM's `[gMASK] <sop>`, or an EOS.
    special: ids that no text may become.
    inside: matches the place after the first letter of each special token's name.
    """

    prefix: list[int]
    suffix: list[int]
    special: frozenset[int]
    inside: re.Pattern[str]


def habits(tokenizer: PreTrainedTokenizerBase) -> Habits:
    """What `tokenizer` does of its own accord, read from what it makes of a letter.

    Raises:
        StageError: that cannot be told.
    """
    return _habits(tokenizer, len(tokenizer))


@lru_cache(maxsize=16)
def _habits(tokenizer: PreTrainedTokenizerBase, size: int) -> Habits:
    """`habits`, once for each tokenizer, and anew when it was given more tokens."""
    some = next(text for text in ("a", *tokenizer.get_vocab()) if _plain(tokenizer, text))  # not all tokenizers know Latin
    whole, letter = tokenizer(some, split_special_tokens=True)["input_ids"], _plain(tokenizer, some)
    start = next((at for at in range(len(whole)) if whole[at : at + len(letter)] == letter), None)
    if start is None:
        raise StageError("the tokenizer writes a text otherwise where it puts special tokens around it; mend tokenizer.json")
    added = {one for one, token in tokenizer.added_tokens_decoder.items() if token.special}
    special = added | set(tokenizer.all_special_ids)
    roles = {"bos_token", "eos_token", "pad_token", "sep_token", "cls_token", "mask_token"}
    if tokenizer.unk_token_id not in {getattr(tokenizer, f"{role}_id") for role in roles}:
        special.discard(tokenizer.unk_token_id)  # what a letter becomes that the tokenizer does not know
    names = [name for name in tokenizer.convert_ids_to_tokens(sorted(special)) if name and len(name) > 1]
    inside = "|".join(f"(?<={re.escape(name[0])})(?={re.escape(name[1:])})" for name in names)
    return Habits(whole[:start], whole[start + len(letter) :], frozenset(special), re.compile(inside or r"(?!)"))


def letters(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of the letters of `text`, none of them special: every text of a user becomes ids here.

    Some tokenizers have special tokens among their ordinary words, and would take the one for the other: there, each such
    name is encoded in two parts. What is special even so, as a pad token of one letter, is left out.
    """
    ids, own = _plain(tokenizer, text), habits(tokenizer)
    if own.special.isdisjoint(ids):
        return ids
    return [one for part in own.inside.split(text) for one in _plain(tokenizer, part) if one not in own.special]


def _plain(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text that goes on: after what the tokenizer puts before every text, and without what it puts after."""
    return habits(tokenizer).prefix + letters(tokenizer, text)


def encode_whole(tokenizer: PreTrainedTokenizerBase, text: str, longest: int) -> list[int]:
    """Token ids of a text as the tokenizer writes it, with what it puts before and after; the text is cut to fit `longest`."""
    own = habits(tokenizer)
    room = max(longest - len(own.prefix) - len(own.suffix), 0)
    return own.prefix + letters(tokenizer, text)[:room] + own.suffix


def ending(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What follows a whole text in training: what the tokenizer puts there, up to EOS; and one EOS."""
    eos, suffix = tokenizer.eos_token_id, habits(tokenizer).suffix
    return [*suffix[: suffix.index(eos) if eos in suffix else None], eos]


def encode_pair(tokenizer: PreTrainedTokenizerBase, prompt: str, response: str) -> tuple[list[int], list[int]]:
    """Token ids of a prompt, as `encode` gives them, and of the response that goes on from it.

    The response is a part of the whole text: alone, a SentencePiece tokenizer would put another space before it. Only
    where the prompt's last token would merge with the response's first is the response encoded apart.
    """
    before, whole = encode(tokenizer, prompt), encode(tokenizer, prompt + response)
    if whole[: len(before)] == before:
        return before, whole[len(before) :]
    return before, letters(tokenizer, response)


def encode_example(
    tokenizer: PreTrainedTokenizerBase, prompt: str, response: str, longest: int, cut: bool
) -> tuple[list[int], list[int], bool]:
    """Token ids to train on: of the prompt, of the response with its `ending`, and whether they come to at most `longest`.

    Where they do not, the response is cut there and has no EOS (a model must not learn to stop where the scissors did), or,
    without `cut` or room for any of it, empty.
    """
    before, after = encode_pair(tokenizer, prompt, response)
    whole = after + ending(tokenizer)
    if len(before) + len(whole) <= longest:
        return before, whole, True
    return before, after[: max(longest - len(before), 0)] if cut else [], False


def decode_response(tokenizer: PreTrainedTokenizerBase, prompt: list[int], response: list[int]) -> str:
    """The text that `response` adds to `prompt`, its leading space included, special tokens left out."""
    before, whole = (tokenizer.decode(ids, skip_special_tokens=True) for ids in (prompt, prompt + response))
    return whole.removeprefix(before) if whole.startswith(before) else tokenizer.decode(response, skip_special_tokens=True)
