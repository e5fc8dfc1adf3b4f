"""Settle the number of rows of each table, from the counts in `data` and the rows of a source.

Each split of a source is a pool of texts. Tables draw from a pool independently, so a text may be in two tables. A count is of
one of three kinds:

- A whole number is used as it is.
- A share is a share of the rows that the pool has for the table.
- Empty counts divide the rest of their pool, in the proportions of the default params.yaml. But the corpus takes no part in the
  division, since it is the language of all texts. Its empty count means every text.
"""

from ..engine.errors import StageError
from ..settings.counts import number_of
from ..settings.data import PROPORTIONS, DataSettings, whole_numbers

IN_TWOS = ("sft_rows", "labelled_texts", "labelled_held_out")  # half of each sentiment


class Sizes:
    """The number of rows of each table.

    Attributes:
        data: the section `data`.
        came_to: name of the count in `data` -> number of rows.
        short: name of a setting that asks for too much -> the number it asks for, and the number that would fit.
        hints: reasons why there are so few rows, if known.
    """

    def __init__(self, data: DataSettings) -> None:
        self.data = data
        self.came_to: dict[str, int] = {}
        self.short: dict[str, str] = {}
        self.hints: list[str] = []

    def __getitem__(self, name: str) -> int:
        return self.came_to[name]

    def share_out(self, pool: int, there: dict[str, int], texts: dict[str, int] | None = None) -> None:
        """Settle the counts that draw from one pool.

        Args:
            pool: the number of texts in the pool.
            there: name of the count -> the most rows that the pool has for it.
            texts: name of the count -> texts of a row, if a row has not one text.
        """
        each = dict.fromkeys(there, 1) | (texts or {})
        asked = {name: getattr(self.data, name) for name in there}
        divided = [name for name in there if name != "corpus_texts"]
        taken = sum(each[name] * min(number_of(asked[name], there[name]), there[name]) for name in divided if asked[name])
        weights = {name: PROPORTIONS[name] * each[name] for name in divided if asked[name] is None}
        for name, most in there.items():
            step = 2 if name in IN_TWOS else 1
            number = number_of(asked[name], most)
            if name in weights:
                number = min(max(pool - taken, 0) * weights[name] // sum(weights.values()) // each[name], most)
            least = 0 if isinstance(asked[name], int) else step  # a share of less than one row becomes one row
            fitting = min(max(number, least), most) // step * step
            if fitting < max(number // step * step, least):
                self.lacks(f"data.{name}", asked[name], fitting)
            self.came_to[name] = fitting

    def take_whole(self, *names: str) -> None:
        """Settle the counts of rows that the grammar writes, as they are in the settings.

        Raises:
            StageError: a count is not a whole number.
        """
        names = names or tuple(PROPORTIONS)
        if faults := whole_numbers(self.data, *names):
            raise StageError(faults[0])
        self.came_to |= {name: getattr(self.data, name) for name in names}

    def lacks(self, setting: str, asked: object, fitting: int) -> None:
        """Note that a setting asks for more rows than there are."""
        value = "empty" if asked is None else asked
        self.short[setting] = f"{setting} is {value}, but {f'at most {fitting}' if fitting else 'none'} are available"

    def refuse(self, name: str) -> None:
        """Refuse all counts that ask for more than the source `name` has, in one message.

        Raises:
            StageError: a count is too large. The message has the numbers that would fit.
        """
        if self.short:
            raise StageError(
                f"some settings ask for more rows than {name} has: {'; '.join([*self.short.values(), *self.hints])}"
            )


def for_grammar(data: DataSettings) -> tuple[dict[str, int], list[str]]:
    """Return counts for which the grammar needs a few seconds, and those that are lowered as `pairs 5000 to 750`.

    A table gets at most a quarter of its count in the default params.yaml. Prompts are quick to write, and `ppo` and `evaluate`
    need their number, so only an empty count or a share of them changes.
    """
    few: dict[str, int] = {}
    lower: list[str] = []
    for name, usual in PROPORTIONS.items():
        asked, prompts = getattr(data, name), name.startswith("prompts")
        most = usual if prompts else usual // 4 // 2 * 2
        few[name] = most if not isinstance(asked, int) else asked if prompts else min(asked, most)
        if isinstance(asked, int) and few[name] < asked:
            lower.append(f"{name} {asked} to {few[name]}")
    return few, lower
