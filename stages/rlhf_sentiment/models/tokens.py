"""Convert text and messages to token ids and back.

A user's text never becomes a special token, even where it spells `<|endoftext|>`. A sequence gets special tokens from four
sources only: the tokenizer itself puts them before and after a text, its chat template puts them around messages, an example
ends with EOS, and a model samples them.
"""

import re
from functools import lru_cache
from typing import NamedTuple

from transformers import PreTrainedTokenizerBase

from ..engine.errors import StageError, first_line
from ..engine.records import Row

_JOINT = "\0"  # where the name of a special token in a message is split. The data have no NUL
# Some templates write the date of today into a prompt. The ids must be the same each day, so the function has another result.
_DATE = "{% macro strftime_now(form) %}26 Jul 2024{% endmacro %}\n"  # the templates' settings remove this line end


class Habits(NamedTuple):
    """What a tokenizer adds to every text.

    Attributes:
        prefix, suffix: ids that it puts before and after a text, such as a BOS, GLM's `[gMASK] <sop>`, or an EOS.
        special: ids that no text may become.
        inside: matches the position after the first letter of each special token's name.
    """

    prefix: list[int]
    suffix: list[int]
    special: frozenset[int]
    inside: re.Pattern[str]


def habits(tokenizer: PreTrainedTokenizerBase) -> Habits:
    """Return what `tokenizer` adds to every text. The function finds it by encoding one letter.

    Raises:
        StageError: the tokenizer encodes no text, or the letter's own tokens change when special tokens are around them.
    """
    return _habits(tokenizer, len(tokenizer))


@lru_cache(maxsize=16)
def _habits(tokenizer: PreTrainedTokenizerBase, size: int) -> Habits:
    """Compute `habits` once for each tokenizer. `size` is in the cache's key, for a tokenizer that got more tokens."""
    texts = ("a", *tokenizer.get_vocab())  # some tokenizers lack Latin letters
    some = next((text for text in texts if _plain(tokenizer, text)), None)
    if some is None:
        raise StageError(
            f"{tokenizer.name_or_path}: the tokenizer encodes every text as no tokens; tokenizer.json must be of the kind that "
            f"transformers reads for this model ({type(tokenizer).__name__})"
        )
    whole, letter = tokenizer(some, split_special_tokens=True)["input_ids"], _plain(tokenizer, some)
    start = next((at for at in range(len(whole)) if whole[at : at + len(letter)] == letter), None)
    if start is None:
        raise StageError("the tokenizer encodes a text differently between special tokens; correct tokenizer.json")
    added = {one for one, token in tokenizer.added_tokens_decoder.items() if token.special}
    special = added | set(tokenizer.all_special_ids)
    roles = {"bos_token", "eos_token", "pad_token", "sep_token", "cls_token", "mask_token"}
    if tokenizer.unk_token_id not in {getattr(tokenizer, f"{role}_id") for role in roles}:
        special.discard(tokenizer.unk_token_id)  # it stands for letters that the tokenizer does not know
    names = [name for name in tokenizer.convert_ids_to_tokens(sorted(special)) if name and len(name) > 1]
    inside = "|".join(f"(?<={re.escape(name[0])})(?={re.escape(name[1:])})" for name in names)
    return Habits(whole[:start], whole[start + len(letter) :], frozenset(special), re.compile(inside or r"(?!)"))


def letters(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of the letters of `text`, without special tokens. Every user's text is encoded here.

    Some tokenizers have special tokens among their ordinary words, and would encode a text as such a token. There, each name
    of a special token is encoded in two parts. A special token of one letter, such as a pad token, is left out.
    """
    ids, own = _plain(tokenizer, text), habits(tokenizer)
    if own.special.isdisjoint(ids):
        return ids
    return [one for part in own.inside.split(text) for one in _plain(tokenizer, part) if one not in own.special]


def _plain(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


def encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of a text that will continue, with the tokenizer's prefix and without its suffix."""
    return habits(tokenizer).prefix + letters(tokenizer, text)


def encode_whole(tokenizer: PreTrainedTokenizerBase, text: str, longest: int) -> list[int]:
    """Return the token ids of a whole text, with the tokenizer's prefix and suffix, truncated to `longest` tokens."""
    own = habits(tokenizer)
    room = max(longest - len(own.prefix) - len(own.suffix), 0)
    return own.prefix + letters(tokenizer, text)[:room] + own.suffix


def ending(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that end a text in training: the tokenizer's suffix up to its EOS, and one EOS."""
    eos, suffix = tokenizer.eos_token_id, habits(tokenizer).suffix
    return [*suffix[: suffix.index(eos) if eos in suffix else None], eos]


def encode_pair(tokenizer: PreTrainedTokenizerBase, prompt: str, response: str) -> tuple[list[int], list[int]]:
    """Return the token ids of a prompt (as `encode`) and of the response that continues it.

    Prompt and response are encoded together, because a SentencePiece tokenizer would put another space before a response
    alone. The response is encoded alone only where its first token would merge with the prompt's last token.
    """
    before, whole = encode(tokenizer, prompt), encode(tokenizer, prompt + response)
    if whole[: len(before)] == before:
        return before, whole[len(before) :]
    return before, letters(tokenizer, response)


def has_template(tokenizer: PreTrainedTokenizerBase, row: Row) -> bool:
    """Return whether a prompt is encoded with the chat template: it has messages, and the tokenizer has a template."""
    return bool(row.get("messages")) and bool(tokenizer.chat_template)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, row: Row, where: str) -> list[int]:
    """Return the token ids of the prompt of a prepared row: of its messages in the chat template, or else of its text.

    Args:
        tokenizer: of a model.
        row: has `prompt`, and `messages` if the source has them.
        where: the file and line of the row, for messages.

    Raises:
        StageError: the template refuses the messages.
    """
    if not has_template(tokenizer, row):
        return encode(tokenizer, row["prompt"])
    return _with_special(tokenizer, _rendered(tokenizer, row, where))


def encode_example(
    tokenizer: PreTrainedTokenizerBase, row: Row, response: str, longest: int, cut: bool, where: str
) -> tuple[list[int], list[int], bool]:
    """Return the token ids of a prompt, of the response with its `ending`, and whether both fit into `longest` tokens.

    A response that does not fit is truncated and has no EOS, because the model must not learn to stop at the truncation
    point. The response is empty without `cut`, or where the prompt leaves no room. After a chat template, the response has no
    leading space. `row` and `where` are those of `encode_prompt`.

    Raises:
        StageError: the chat template refuses the messages.
    """
    if has_template(tokenizer, row):
        prompt, answer = _rendered(tokenizer, row, where), response.removeprefix(" ")
        before, both = (_with_special(tokenizer, text) for text in (prompt, prompt + _safe(tokenizer, answer)))
        after = both[len(before) :] if both[: len(before)] == before else letters(tokenizer, answer)
        whole = [*after, tokenizer.eos_token_id]
    else:
        before, after = encode_pair(tokenizer, row["prompt"], response)
        whole = after + ending(tokenizer)
    if len(before) + len(whole) <= longest:
        return before, whole, True
    return before, after[: max(longest - len(before), 0)] if cut else [], False


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Return the special token with which the chat template ends a turn of the assistant. None if there is no such token."""
    word = "answer"
    talk = [{"role": "user", "content": "question"}, {"role": "assistant", "content": word}]
    try:
        text = _templated(tokenizer, talk, False)
    except Exception:  # without a template, or with one that refuses these messages
        return None
    after = _with_special(tokenizer, text.rpartition(word)[2])
    return next((one for one in after if one in habits(tokenizer).special), None)


def _rendered(tokenizer: PreTrainedTokenizerBase, row: Row, where: str) -> str:
    """Return the text of a row's messages in the chat template, up to the start of the response."""
    try:
        safe = [message | {"content": _safe(tokenizer, message["content"])} for message in row["messages"]]
        return _templated(tokenizer, safe, True)
    except Exception as error:  # a template raises errors of its own, and any error of a program
        raise StageError(
            f"{where}: the chat template of the tokenizer refuses the messages: {first_line(error)}; correct or leave out the "
            "row, or use a model with another template"
        ) from None


def _templated(tokenizer: PreTrainedTokenizerBase, messages: list[dict[str, str]], asks: bool) -> str:
    """Return messages in the chat template, and, if it `asks`, the start of the response. No model is asked to think first.

    Thoughts would take more tokens than a response has. `enable_thinking` is the name in the templates of Qwen and SmolLM.
    """
    template = _DATE + tokenizer.get_chat_template()
    options = {"add_generation_prompt": asks, "enable_thinking": False}
    return str(tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options))


def _safe(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    return habits(tokenizer).inside.sub(_JOINT, text)


def _with_special(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of a text from a chat template. The template itself puts BOS where it should be."""
    return [one for part in text.split(_JOINT) for one in tokenizer(part, add_special_tokens=False)["input_ids"]]


def decode_response(tokenizer: PreTrainedTokenizerBase, prompt: list[int], response: list[int]) -> str:
    """Return the text that `response` adds to `prompt`, with its leading space and without special tokens."""
    before, whole = (tokenizer.decode(ids, skip_special_tokens=True) for ids in (prompt, prompt + response))
    return whole.removeprefix(before) if whole.startswith(before) else tokenizer.decode(response, skip_special_tokens=True)
