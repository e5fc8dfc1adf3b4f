r"""Messages, {role, content}, and the transcripts that people read in their place.

A dialogue becomes a transcript, "\n\nHuman: ...\n\nAssistant: ...", whose prompt ends with "\n\nAssistant:" (HH-RLHF,
2204.05862). If a source has messages, the tables keep them beside the transcript, for models with a chat template.
"""

from collections.abc import Sequence
from typing import Any

from ..engine.records import Row
from .faults import Fault
from .text import cleaned_lines

TURN = "\n\nAssistant:"
SPEAKERS = {"user": "Human", "human": "Human", "assistant": "Assistant", "system": "System"}
_ROLES = {"Human": "user", "Assistant": "assistant", "System": "system"}  # the names that chat templates know

Message = dict[str, str]  # role (user, assistant or system) and content


def speaker(message: Any) -> str:
    """Return the speaker of a message: Human, Assistant or System.

    Raises:
        Fault: the value is not a message.
    """
    role = message.get("role") if isinstance(message, dict) else None
    if not isinstance(role, str) or role not in SPEAKERS or not isinstance(message.get("content"), str | list):
        raise Fault(f"a message does not have the form {{role: {', '.join(SPEAKERS)}; content: text}}")
    return SPEAKERS[role]


def content_of(message: Any) -> str:
    """Return the text of a message, cleaned. The text may be in parts, {type: text, text: ...}, which are joined.

    Raises:
        Fault: the content has a part of another type, such as an image.
    """
    content = message["content"]
    if isinstance(content, list):
        if not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in content):
            raise Fault("a message has a part that is not {type: text, text: ...}")
        content = "".join(part["text"] for part in content)
    return cleaned_lines(content)


def transcript(messages: Sequence[Any]) -> str:
    """Join messages to one text.

    Raises:
        Fault: one of them is not a message.
    """
    return "".join(f"\n\n{speaker(message)}: {content_of(message).strip()}" for message in messages)


def messages_of(prompt: str, cells: Row) -> list[Message] | None:
    """Return the messages whose transcript is a prompt. None if the row has no messages, or joins them with transcripts.

    The prompt of a row can be joined from its parts (dialogue.py): from the cell `prompt`, which may be a text, and from the
    messages before a response.

    Args:
        prompt: the prompt of the row's record.
        cells: the row, by our names of the columns.
    """
    given = cells.get("prompt")
    values = [value for name, value in cells.items() if name != "prompt"]
    values += [one for value in values if isinstance(value, list) for one in value]  # of `completions`
    talks = [[value] if isinstance(value, dict) else value for value in values if _are_messages(value)]
    if not talks and not _are_messages(given):
        return None
    own = [{"role": "user", "content": given}] if isinstance(given, str) else given or []
    for talk in [*talks, []]:
        for before in (talk[:-1], talk):
            for found in (before, own, own[:1] + before, own + before):
                if found and _asks(found, prompt):
                    return [{"role": _ROLES[speaker(one)], "content": content_of(one).strip()} for one in found]
    return None


def answered(response: str) -> Message:
    """Return a response as a message of the assistant."""
    return {"role": "assistant", "content": response.strip()}


def _are_messages(value: Any) -> bool:
    many = [value] if isinstance(value, dict) else value
    return isinstance(many, list) and bool(many) and all(isinstance(one, dict) and "role" in one for one in many)


def _asks(messages: Sequence[Any], prompt: str) -> bool:
    try:
        return transcript(messages) + TURN == prompt
    except Fault:
        return False


def beside(messages: list[Message] | None) -> Row:
    """Return the column of a table's row that has the messages of its prompt. A row without messages has no such column."""
    return {"messages": messages} if messages else {}
