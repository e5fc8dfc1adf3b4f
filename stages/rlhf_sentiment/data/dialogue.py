"""Find the prompt and the responses in texts, lists of messages and transcripts, so that no response repeats the prompt.

A dialogue becomes a transcript (chat.py). Prompts and responses keep their lines (text.py). A response begins with one space,
so that prompt + response is one text.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any

from ..engine.messages import shown
from .chat import TURN, content_of, speaker, transcript
from .faults import Fault
from .text import cleaned_lines, words

_SYSTEM = re.compile(r"\n\nSystem: .*?(?=\n\nHuman: )", re.DOTALL)
_SPACE = re.compile(r"\s*")
# The mark of a speaker before a prompt in other forms of transcripts, such as "User:", "[INST]" or "<|im_start|>user".
_ASKER = "human|user|customer|client|person|student|question|query|q|instruction|input|prompt|inst|sys"
_MARK = re.compile(rf"(?:[>\[#|]\s?(?:{_ASKER})\b|\b(?:{_ASKER})\s?[:>\]|*])\W{{0,20}}(?:<\|\w+\|>)?\W{{0,20}}$", re.IGNORECASE)


def text_of(value: Any, name: str, clean: Callable[[str], str] = cleaned_lines) -> str:
    """Return a text, cleaned.

    Raises:
        Fault: the value is not a text, or is empty.
    """
    if value is not None and not isinstance(value, str):
        raise Fault(f"{name} is not text", f"{name} is {shown(value)}, not text")
    text = clean(value or "")
    if not text.strip():
        raise Fault(f"no {name}")
    return text


def prompt_of(value: Any) -> str:
    """Return a prompt from a text, or from the messages before a response.

    Raises:
        Fault: the value is neither, or empty.
    """
    return transcript(value) + TURN if isinstance(value, list) and value else text_of(value or None, "prompt")


def split(prompt: Any, names: Sequence[str], sides: Sequence[Any], instruction: str | None = None) -> tuple[str, list[str]]:
    """Return the prompt, and the responses without it.

    Args:
        prompt: a text, messages, or None if each side begins with the prompt.
        names: the names of the sides, for messages.
        sides: responses, with or without the prompt: texts, transcripts, a message or messages. The prompt is cut off. In a
            text, the beginning is the prompt only if all sides begin with the whole prompt, and it has more than one word. Else
            a response may quote the question, or begin with the same word.
        instruction: a part of the prompt. The sides may begin with this part instead of the whole prompt.

    Raises:
        Fault: there is no prompt or no response, or they do not fit together, or the response would repeat the prompt.
    """
    if prompt is None:
        parts = [_parts(side, name) for name, side in zip(names, sides, strict=True)]
        names = [f"response in {name}" for name in names]
    elif isinstance(prompt, str | list):
        parts = _after(prompt, names, sides)
    else:
        raise Fault("prompt is not text", f"prompt is {shown(prompt)}, not text")
    if any(before != parts[0][0] for before, _ in parts):
        raise Fault(f"different prompts in {' and '.join(dict.fromkeys(names))}".replace("response in ", ""))
    asked, responses = parts[0][0], [response for _, response in parts]
    for opening in filter(None, (_question(asked), instruction)):
        rests = [rest for response in responses if (rest := _without(opening, response)) is not None]
        if len(rests) == len(responses) and len(words(opening)) > 1:
            responses = rests
            break
        if all(_is_marked(opening, response) for response in responses):
            raise Fault("the response repeats the prompt in an unknown transcript format")
    return asked, [_response(response, name) for response, name in zip(responses, names, strict=True)]


def _question(asked: str) -> str:
    """Return the last question: the last turn of the human in a transcript, or the whole of another prompt."""
    if not asked.endswith(TURN.strip()):
        return asked.strip()
    return f"\n\n{asked.removesuffix(TURN.strip())}".rpartition("\n\nHuman: ")[2].strip()


def _is_marked(prompt: str, text: str) -> bool:
    """Return whether `text` contains the whole prompt after the mark of a speaker."""
    before = " ".join(text.split()).split(" ".join(prompt.split()))[:-1]
    return any(_MARK.search(part) for part in before)


def _response(text: str, name: str) -> str:
    if not text.strip():
        raise Fault(f"no {name}")
    return " " + text.strip()


def _parts(side: Any, name: str) -> tuple[str, str]:
    """Split a side that contains both the prompt and the response."""
    if isinstance(side, list | dict):
        before, response = _split_messages(side, name)
        if not before:
            raise Fault(f"{name} has no message before the response")
        return before + TURN, response
    before, turn, response = text_of(side, name).rpartition(TURN)
    if not turn:
        raise Fault(f"no prompt, and no {shown(TURN.strip())} in {name}")
    return before + turn, response


def _split_messages(side: Any, name: str) -> tuple[str, str]:
    """Return the transcript before the assistant's last message, and the content of that message."""
    messages = [side] if isinstance(side, dict) else side
    if not messages or speaker(messages[-1]) != "Assistant":
        raise Fault(f"the last message of {name} is not from the assistant")
    return transcript(messages[:-1]), content_of(messages[-1])


def _after(prompt: str | list[Any], names: Sequence[str], sides: Sequence[Any]) -> list[tuple[str, str]]:
    """Return the prompt and the response of each side. A side may contain the prompt or not."""
    asked = prompt_of(prompt)
    is_talk = asked.endswith(TURN.strip())
    talk = "\n\n" + (asked.removesuffix(TURN.strip()) if is_talk else f"Human: {asked}").strip()
    parts: list[tuple[str, str]] = []
    for name, side in zip(names, sides, strict=True):
        if isinstance(side, list | dict):
            before, response = _split_messages(side, name)
            whole = _joined(talk, before)
            if whole is None:
                raise Fault(f"the messages of {name} do not match the prompt")
            parts.append((whole + TURN, response))
            continue
        text = text_of(side, name)
        before, turn, response = f"\n\n{text.lstrip()}".rpartition(TURN)
        if turn and before.startswith(("\n\nHuman:", "\n\nSystem:")) and (whole := _joined(talk, before)):
            parts.append((asked if is_talk and whole == talk else whole + TURN, response))
        else:
            parts.append((asked, (_without(asked, text) if is_talk else None) or text))
    return parts


def _joined(asked: str, before: str) -> str | None:
    """Join the prompt `asked` and the transcript before a response, or return None if they do not fit together.

    Each of the two may have more messages than the other, before them (such as the system's) or after them.
    """
    if f"{asked}\n\n" in f"{before}\n\n":
        return before
    if asked.endswith(before):
        return asked
    system = _SYSTEM.match(asked)
    if system and not before.startswith("\n\nSystem: ") and f"{before}\n\n".startswith(f"{asked[system.end() :]}\n\n"):
        return system[0] + before
    last = re.findall(r"\n\n(Human|Assistant|System): ", asked)[-1:]
    goes_on = before.startswith("\n\nHuman: " if last == ["Assistant"] else "\n\nAssistant: ")
    return asked + before if goes_on else None


def _without(prompt: str, text: str) -> str | None:
    """Return the rest of `text` after the prompt, in any white space; None if `text` does not begin with the whole prompt."""
    end = 0
    for word in prompt.split():
        start = end + len(_SPACE.match(text, end)[0])  # type: ignore[index]  # it always matches
        if not text.startswith(word, start):
            return None
        end = start + len(word)
    goes_on = end and end < len(text) and _is_word(text[end - 1]) and _is_word(text[end])
    return None if goes_on else text[end:]


def _is_word(letter: str) -> bool:
    """Return whether a character can continue a word. Scripts without capitals may have no space between words."""
    return letter.isdigit() or letter.lower() != letter.upper()
