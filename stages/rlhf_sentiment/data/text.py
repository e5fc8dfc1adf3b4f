"""Text as the data stages see it: cleaned, the same text, the split it belongs to, and its words.

A word is what white space parts. Some scripts, such as Chinese, Japanese and Thai, put no space between words: there each
letter, with the marks that combine with it, is a word of its own. Without a dictionary nothing finer can be said.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from itertools import islice

import regex

# Letters of scripts without spaces: those that a line may break at (UAX #14), and Tibetan ones. Korean has spaces, and so have
# Latin letters that are as wide as Chinese ones.
_BREAKS = r"\p{LB=ID}\p{LB=CJ}\p{LB=NS}\p{LB=SA}\p{LB=AK}\p{LB=AS}\u0f00-\u0fff"
_LETTER = rf"[[[{_BREAKS}]&&[\p{{L}}\p{{Nl}}]]--[\p{{sc=Latin}}\p{{sc=Hangul}}]]"
_CLUSTER = rf"(?={_LETTER})\X\p{{M}}*+"  # with its marks
_OTHER = r"[^\s\p{L}\p{N}]*+"  # punctuation and symbols
_MAY_LACK_SPACES = regex.compile(f"[{_BREAKS}]")
_LETTERS = regex.compile(_CLUSTER, regex.V1)
_WORDS = regex.compile(rf"{_OTHER}{_CLUSTER}{_OTHER}|[\S--{_LETTER}]++", regex.V1)
_CHUNK = re.compile(r"\S+")

TERM = r"[\p{L}\p{N}_][\p{L}\p{M}\p{N}_]*+"  # for `regex`: re's \w+, and the marks of its letters
_TERMS = regex.compile(TERM)

# Marks that combine; U+FF9E and U+FF9F become such. The joiner (U+034F) parts them.
_MARK = r"[\p{M}\uff9e\uff9f--\u034f]"
_MANY_MARKS = regex.compile(rf"{_MARK}{{30}}(?={_MARK})", regex.V1)

_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_LINE_END = re.compile(r"\r\n|[\n\r\x0b\x0c\x85\u2028\u2029]")


def cleaned(text: str) -> str:
    """`text` on one line: HTML line breaks and every run of white space become one space."""
    return " ".join(_BREAK.sub(" ", text).split())


def cleaned_lines(text: str) -> str:
    """`text` with its lines: HTML line breaks become line breaks, other runs of white space one space, and of blank lines
    in a row one stays. White space at the end goes; two line breaks at the start, as a transcript has them, stay."""
    lines = (" ".join(line.split()) for line in _LINE_END.split(_BREAK.sub("\n", text)))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip()


def normalised(text: str) -> str:
    """`text` with what does not make it another text taken away: case, width and composition, runs of white space.

    NFKC puts the marks of a letter in order, and its cost grows with the square of their number. A joiner after every 30,
    as in Unicode's Stream-Safe Text Format (UAX #15), bounds that. No writing system has so many.
    """
    safe = text if text.isascii() else _MANY_MARKS.sub("\\g<0>\u034f", text)
    return " ".join(unicodedata.normalize("NFKC", safe).casefold().split())


def split_of(text: str, validation: float, test: float) -> str:
    """ "train", "validation" or "test", from a hash of the normalised text: adding rows moves nobody.

    Args:
        validation, test: shares of all texts, in [0, 1).
    """
    place = place_of(text)
    return "test" if place < test else "validation" if place < test + validation else "train"


def place_of(text: str, purpose: str = "") -> float:
    """A number in [0, 1) from a hash of the normalised text; another purpose gives another, independent number."""
    digest = hashlib.sha256((purpose + normalised(text)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def digest_of(*texts: str) -> int:
    """A number below 2**64 from a hash of normalised texts: the same for the same texts, and hardly ever for others."""
    whole = "\0".join(map(normalised, texts))
    return int.from_bytes(hashlib.blake2b(whole.encode(), digest_size=8).digest(), "big")


def words(text: str) -> list[str]:
    """The words of `text`, as lengths count them. Punctuation belongs to the word that it stands at.

    Example:
        >>> words("It was good, really."), words("我看了 Titanic，很好。")
        (['It', 'was', 'good,', 'really.'], ['我', '看', '了', 'Titanic，', '很', '好。'])
    """
    if not _may_lack_spaces(text):
        return text.split()
    return [word for chunk in text.split() for word in _WORDS.findall(chunk)]


def word_ends(text: str) -> Iterator[int]:
    """Where each word of `text` ends."""
    lacking = _may_lack_spaces(text)
    for chunk in _CHUNK.finditer(text):
        yield from (word.end() for word in _WORDS.finditer(text, *chunk.span())) if lacking else (chunk.end(),)


def cut_words(text: str, count: int) -> str:
    """The first `count` words of `text`, white space as it was."""
    return text[: max(islice(word_ends(text), count), default=0)]


def terms(text: str) -> list[str]:
    """The words of `text` without punctuation, which parts words here as white space does.

    Example:
        >>> terms("It wasn't good."), terms("我看了 Titanic，很好。")
        (['It', 'wasn', 't', 'good'], ['我', '看', '了', 'Titanic', '很', '好'])
    """
    return _TERMS.findall(spaced(text))


def spaced(text: str) -> str:
    """`text` with a space on each side of each letter of a script without spaces, for whatever knows words by spaces."""
    return _LETTERS.sub(r" \g<0> ", text) if _may_lack_spaces(text) else text


def _may_lack_spaces(text: str) -> bool:
    """Whether `text` may hold letters of a script without spaces: a quick answer, since most texts hold none."""
    return not text.isascii() and _MAY_LACK_SPACES.search(text) is not None
