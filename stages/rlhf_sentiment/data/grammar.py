"""The grammar of the synthetic source: it writes film reviews from a seed, and reads the polarity of sentences.

A review is a neutral opening (the prompt) and a verdict (the response):

    On Friday my cousin watched a quiet comedy about a lighthouse. | The acting was anything but dull, and I laughed.
                                                    prompt ends with "The acting was" ^

A rule is a list of templates. `{name}` in a template is another rule. Rules of sentiment are written once and used for both
polarities: `{good}` is a word of the polarity to write, and `{~good}` a word of the opposite polarity. So "not {~good}" becomes
"not dull" in a positive review and "not lovely" in a negative one. Many verdicts contain a word of the opposite polarity, so a
keyword is not enough to classify them. No rule refers to itself, so each rule is also a regular expression. The expressions
recognise the sentences of the grammar, and their polarity.
"""

import random
import re
from functools import cache
from typing import NamedTuple

POSITIVE, NEGATIVE = 1, -1

# Neutral: who saw what, when.
_NEUTRAL: dict[str, list[str]] = {
    "opening": ["{when} {who} {saw} {film} about {topic}.", "{who} {saw} {film} about {topic} {later}."],
    "when": [
        "On Friday", "On Sunday", "Last night", "Last week", "Yesterday", "In the spring", "In the winter",
        "After work", "After dinner", "Over the weekend", "On the train", "At the festival", "On holiday",
    ],
    "later": ["on Friday", "last night", "last week", "in the spring", "after dinner", "at the festival", "on the train"],
    "who": [
        "we", "our class", "the family", "my cousin", "my brother", "my sister", "my parents", "two friends",
        "my neighbour", "her aunt", "his uncle", "a colleague", "the club", "our teacher",
    ],
    "saw": ["saw", "watched", "chose", "rented", "picked"],
    "film": ["a {kind} {genre}", "a {genre}", "the {kind} {genre}", "the new {genre}", "another {genre}"],
    "kind": ["short", "quiet", "French", "Polish", "silent", "modern", "two-hour", "recent", "famous", "black-and-white"],
    "genre": ["comedy", "drama", "thriller", "western", "musical", "romance", "mystery", "documentary", "cartoon"],
    "topic": [
        "a sailor", "a lighthouse", "two sisters", "a lost letter", "a village doctor", "the railway", "a chess player",
        "a night porter", "a stolen violin", "three students", "a mountain guide", "the old harbour", "a piano tuner",
        "a bank clerk", "a wedding", "a long journey", "a country school", "the moon", "a retired spy", "a glass factory",
        "a border town", "a young painter", "a travelling circus", "the first winter", "an island", "a river boat",
    ],
    # The subjects and the speakers.
    "part": [
        "film", "story", "plot", "script", "acting", "cast", "music", "score", "camera work", "ending", "beginning",
        "dialogue", "pacing", "editing", "lead actor", "second half", "main character", "direction", "humour", "final scene",
    ],
    "was": ["was", "felt", "seemed"],
    "speaker": ["I", "We", "My sister", "My brother", "My cousin", "The critic beside me", "Our neighbour", "Everyone there"],
    "thought": ["thought", "found that", "said that", "felt that"],
    "seen": ["by the end", "in the last act", "after a while", "from start to finish", "scene after scene", "on the whole"],
}  # fmt: skip

# Rules of sentiment, for both polarities.
_TONED: dict[str, list[str]] = {
    "judgement": [  # follows "The acting was"
        "{plain}",
        "{plain}",
        "{plain}",
        "{plain}",
        "{plain}",
        "{plain}",
        "{plain}",
        "not {~good} at all",
        "anything but {~good}",
        "neither {~good} nor {~good}",
        "not {~good} but {good}",
        "{~degree} {~good} at first but {degree} {good} {seen}",
        "more {good} than {~good}",
        "{degree} {good}, even if the {part} was {~degree} {~good}",
    ],
    "plain": [
        "{degree} {good}",
        "{degree} {good}",
        "{degree} {good} {seen}",
        "{good} and {degree} {good}",
        "{good} and {good}",
    ],
    "reaction": [  # follows "My sister"
        "{enjoyed} the {part}",
        "{enjoyed} the {part} and the {part}",
        "{enjoyed} the {good} {part}",
        "{enjoyed} the {part} and called the {part} {plain}",
        "thought the {part} was {plain}",
        "left the cinema {happy}",
        "never {~enjoyed} the {part}",
        "{~enjoyed} the {part} at first but {enjoyed} it {seen}",
        "did not call the {part} {~good}",
    ],
    "coda": [  # a last clause of the same polarity
        ", and {so}",
        ", so {so}",
        ", and the {part} was {plain}",
        ", and nobody called it {~good}",
        "",
        "",
    ],
}

_POSITIVE: dict[str, list[str]] = {
    "good": [
        "fresh", "lovely", "moving", "funny", "clever", "charming", "brilliant", "warm", "honest", "gripping",
        "touching", "superb", "witty", "tender", "elegant", "memorable", "lively", "convincing",
    ],
    "enjoyed": ["loved", "enjoyed", "admired", "praised", "adored", "savoured"],
    "happy": ["smiling", "delighted", "full of joy", "in high spirits", "deeply moved"],
    "degree": ["wonderfully", "delightfully", "beautifully", "splendidly", "pleasantly"],
    "so": [
        "I would gladly see it again", "we laughed until the lights came on", "I told all my friends to go",
        "the whole room applauded", "it made my week", "I bought the music the next day",
    ],
}  # fmt: skip

_NEGATIVE: dict[str, list[str]] = {
    "good": [
        "dull", "awful", "boring", "clumsy", "silly", "lifeless", "tedious", "cold", "stale", "shallow",
        "messy", "dreary", "hollow", "flat", "annoying", "lazy", "forgettable", "predictable",
    ],
    "enjoyed": ["hated", "disliked", "mocked", "regretted", "loathed", "endured"],
    "happy": ["yawning", "disappointed", "full of regret", "in a bad mood", "deeply bored"],
    "degree": ["hopelessly", "dreadfully", "terribly", "painfully", "needlessly"],
    "so": [
        "I would never sit through it again", "we yawned until the lights came on", "I told all my friends to stay away",
        "half of the room walked out", "it ruined my week", "I wanted my money back the next day",
    ],
}  # fmt: skip

# The end of a prompt -> the first rule of its response.
_LEADS = {"The {part} {was}": "judgement", "{speaker} {thought} the {part} was": "judgement", "{speaker}": "reaction"}
_SLOT = re.compile(r"\{(~?)(\w+)\}")
_REPEATED = re.compile(r"\b((?:the )?\w+(?: \w+)?) (?:and|nor|but) \1\b")


class Review(NamedTuple):
    """A prompt, its response (which starts with a space), and the polarity of the response, 1 or -1."""

    prompt: str
    response: str
    polarity: int


def write_prompt(rng: random.Random, opened: float = 7 / 8) -> tuple[str, str]:
    """Write a neutral prompt. Return it with the first rule of a response. A share `opened` of the prompts has an opening."""
    lead, rule = rng.choice(list(_LEADS.items()))
    opening = _capital(_expand("{opening}", POSITIVE, rng)) + " " if rng.random() < opened else ""
    return opening + _expand(lead, POSITIVE, rng), rule


def write_response(rule: str, polarity: int, rng: random.Random) -> str:
    """Write a response of the given polarity, from its leading space to its final full stop."""
    response = " " + _expand(f"{{{rule}}}{{coda}}.", polarity, rng)
    if rng.random() < 1 / 3:
        response += " " + write_sentence(polarity, rng)
    return response


def write_sentence(polarity: int, rng: random.Random) -> str:
    """Write a whole sentence with a verdict of the given polarity."""
    lead, rule = rng.choice(list(_LEADS.items()))
    return _capital(_expand(f"{lead} {{{rule}}}{{coda}}.", polarity, rng))


def write_review(polarity: int, rng: random.Random) -> Review:
    """Write a prompt and a response of the given polarity."""
    prompt, rule = write_prompt(rng)
    return Review(prompt, write_response(rule, polarity, rng), polarity)


def read_sentences(text: str) -> list[int] | None:
    """Return the polarity of each sentence of `text` (0: a neutral opening), or None if the grammar lacks a sentence."""
    polarities = []
    for sentence in re.findall(r"[^.]+\.|[^.]+$", text):
        sentence = sentence.strip()
        as_rules_write_it = {sentence, sentence[:1].lower() + sentence[1:]} if sentence[:1].isupper() else set()
        for polarity, pattern in _sentence_patterns().items():
            if any(pattern.fullmatch(candidate) for candidate in as_rules_write_it):
                polarities.append(polarity)
                break
        else:
            return None
    return polarities


def polarity_of(text: str) -> int | None:
    """Return 1 or -1 if every verdict in `text` has that polarity.

    Return 0 if the verdicts differ or there is none, and None if the grammar lacks a sentence.
    """
    polarities = read_sentences(text)
    if polarities is None:
        return None
    verdicts = {polarity for polarity in polarities if polarity}
    return verdicts.pop() if len(verdicts) == 1 else 0


@cache
def _templates(rule: str, polarity: int) -> list[str]:
    toned = _POSITIVE if polarity == POSITIVE else _NEGATIVE
    return _NEUTRAL.get(rule) or _TONED.get(rule) or toned[rule]


def _expand(template: str, polarity: int, rng: random.Random) -> str:
    """Fill the slots of `template`, again until no phrase repeats a word, as in "warm and warm"."""
    start, slots = _pieces(template)
    while True:
        text = start
        for flips, rule, following in slots:
            inner = -polarity if flips else polarity
            chosen = rng.choice(_templates(rule, inner))
            text += (_expand(chosen, inner, rng) if "{" in chosen else chosen) + following
        # The first tests are quicker than the last, and most texts fail them.
        if not (" and " in text or " nor " in text or " but " in text) or not _REPEATED.search(text):
            return text


@cache
def _pieces(template: str) -> tuple[str, list[tuple[str, str, str]]]:
    """Return the text before the first slot. For each slot, return "~" or "", its rule, and the text after it."""
    start, *rest = _SLOT.split(template)
    return start, list(zip(rest[::3], rest[1::3], rest[2::3], strict=True))


@cache
def _sentence_patterns() -> dict[int, re.Pattern[str]]:
    """Return a regular expression for each polarity that matches every sentence of that polarity."""
    verdict = [f"{lead} {{{rule}}}{{coda}}." for lead, rule in _LEADS.items()]
    patterns = {polarity: re.compile(_pattern(verdict, polarity)) for polarity in (POSITIVE, NEGATIVE)}
    return patterns | {0: re.compile(_pattern(["{opening}"], POSITIVE))}


def _pattern(templates: list[str], polarity: int) -> str:
    """Return a regular expression that matches every expansion of `templates`."""

    def one(template: str) -> str:
        pieces, end = [], 0
        for match in _SLOT.finditer(template):
            inner = -polarity if match[1] else polarity
            pieces += [re.escape(template[end : match.start()]), _pattern(_templates(match[2], inner), inner)]
            end = match.end()
        return "".join([*pieces, re.escape(template[end:])])

    return "(?:" + "|".join(one(template) for template in templates) + ")"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
