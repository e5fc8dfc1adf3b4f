"""Clean and normalise text, assign it to a split, and find its words.

White space separates words. Some scripts, such as Chinese, Japanese and Thai, have no space between words. There, each letter
with its combining marks is a word, since real words need a dictionary.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from itertools import islice

import regex

# Letters of scripts without spaces: those at which a line may break (UAX #14), and Tibetan ones. Korean has spaces, and
# full-width Latin text too.
_BREAKS = r"\p{LB=ID}\p{LB=CJ}\p{LB=NS}\p{LB=SA}\p{LB=AK}\p{LB=AS}\u0f00-\u0fff"
_LETTER = rf"[[[{_BREAKS}]&&[\p{{L}}\p{{Nl}}]]--[\p{{sc=Latin}}\p{{sc=Hangul}}]]"
_CLUSTER = rf"(?={_LETTER})\X\p{{M}}*+"  # with its marks
_OTHER = r"[^\s\p{L}\p{N}]*+"  # punctuation and symbols
_MAY_LACK_SPACES = regex.compile(f"[{_BREAKS}]")
_LETTERS = regex.compile(_CLUSTER, regex.V1)
_WORDS = regex.compile(rf"{_OTHER}{_CLUSTER}{_OTHER}|[\S--{_LETTER}]++", regex.V1)
_CHUNK = re.compile(r"\S+")

TERM = r"[\p{L}\p{N}_][\p{L}\p{M}\p{N}_]*+"  # for `regex`: as \w+ of `re`, with the marks of letters
_TERMS = regex.compile(TERM)

# Combining marks, and U+FF9E and U+FF9F, which become combining marks. The joiner (U+034F) separates them.
_MARK = r"[\p{M}\uff9e\uff9f--\u034f]"
_MANY_MARKS = regex.compile(rf"{_MARK}{{30}}(?={_MARK})", regex.V1)

_BREAK = re.compile(r"<br\s*/?>", re.IGNORECASE)
_LINE_END = re.compile(r"\r\n|[\n\r\x0b\x0c\x85\u2028\u2029]")


def cleaned(text: str) -> str:
    """Put `text` on one line: HTML line breaks and every run of white space become one space."""
    return " ".join(_BREAK.sub(" ", text).split())


def cleaned_lines(text: str) -> str:
    """Clean `text` but keep its lines.

    HTML line breaks become line breaks, other runs of white space one space, and several blank lines one. White space at the
    end is cut off. Two line breaks at the start, as in a transcript, stay.
    """
    lines = (" ".join(line.split()) for line in _LINE_END.split(_BREAK.sub("\n", text)))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip()


def normalised(text: str) -> str:
    """Normalise `text`, so that texts that differ only in case, width, composition or white space become equal.

    NFKC sorts the marks of a letter, in time that grows with the square of their number. A joiner after every 30 marks, as in
    Unicode's Stream-Safe Text Format (UAX #15), bounds the time. No writing system has so many marks.
    """
    safe = text if text.isascii() else _MANY_MARKS.sub("\\g<0>\u034f", text)
    return " ".join(unicodedata.normalize("NFKC", safe).casefold().split())


def place_of(text: str, purpose: str = "") -> float:
    """Return a number in [0, 1) from a hash of the normalised text. Each purpose gives an independent number."""
    digest = hashlib.sha256((purpose + normalised(text)).encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def digest_of(*texts: str) -> int:
    """Return a number below 2**64 from a hash of normalised texts. Different texts hardly ever have the same number."""
    whole = "\0".join(map(normalised, texts))
    return int.from_bytes(hashlib.blake2b(whole.encode(), digest_size=8).digest(), "big")


def words(text: str) -> list[str]:
    """Return the words of `text`, as lengths count them. Punctuation belongs to the word next to it.

    Example:
        >>> words("It was good, really."), words("我看了 Titanic，很好。")
        (['It', 'was', 'good,', 'really.'], ['我', '看', '了', 'Titanic，', '很', '好。'])
    """
    if not _may_lack_spaces(text):
        return text.split()
    return [word for chunk in text.split() for word in _WORDS.findall(chunk)]


def word_ends(text: str) -> Iterator[int]:
    """Yield the end of each word of `text`."""
    lacking = _may_lack_spaces(text)
    for chunk in _CHUNK.finditer(text):
        yield from (word.end() for word in _WORDS.finditer(text, *chunk.span())) if lacking else (chunk.end(),)


def cut_words(text: str, count: int) -> str:
    """Return the first `count` words of `text`, with their white space."""
    return text[: max(islice(word_ends(text), count), default=0)]


def terms(text: str) -> list[str]:
    """Return the words of `text` without punctuation. Punctuation separates words as white space does.

    Example:
        >>> terms("It wasn't good."), terms("我看了 Titanic，很好。")
        (['It', 'wasn', 't', 'good'], ['我', '看', '了', 'Titanic', '很', '好'])
    """
    return _TERMS.findall(spaced(text))


def spaced(text: str) -> str:
    """Put a space on each side of each letter of a script without spaces, for code that splits words at spaces."""
    return _LETTERS.sub(r" \g<0> ", text) if _may_lack_spaces(text) else text


def _may_lack_spaces(text: str) -> bool:
    """Return whether `text` may contain letters of a script without spaces. The check is quick, since most texts have none."""
    return not text.isascii() and _MAY_LACK_SPACES.search(text) is not None
