"""How many rows each table gets: what the counts of `data` come to, given what a source has.

A split of a source is a pool of texts. Tables draw from it independently: a text may stand in two of them. A whole number
is taken as it is. A share is of what the pool has for that table. Empty counts divide what the other counts of their pool
leave, in the proportions of the embedded default. Only the corpus takes part in no division: it is the language of all
texts, and an empty count means every one.
"""

from ..engine.errors import StageError
from ..settings.counts import number_of
from ..settings.data import PROPORTIONS, DataSettings, whole_numbers

IN_TWOS = ("sft_rows", "labelled_texts", "labelled_held_out")  # half of each sentiment


class Sizes:
    """What each count came to.

    Attributes:
        came_to: name of the count in `data` -> rows.
        short: name of the setting -> what it asks for, and what would fit.
        hints: why there is so little, where that is known.
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
            pool: texts in it.
            there: name of the count -> the most rows that the pool has for it.
            texts: name of the count -> texts that a row takes, where it is not one.
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
            least = 0 if isinstance(asked[name], int) else step  # a share or a part that is less than one row is one row
            fitting = min(max(number, least), most) // step * step
            if fitting < max(number // step * step, least):
                self.lacks(f"data.{name}", asked[name], fitting)
            self.came_to[name] = fitting

    def take_whole(self, *names: str) -> None:
        """Settle counts of rows that the grammar writes: it has as many as are asked for.

        Raises:
            StageError: one is no whole number.
        """
        names = names or tuple(PROPORTIONS)
        if faults := whole_numbers(self.data, *names):
            raise StageError(faults[0])
        self.came_to |= {name: getattr(self.data, name) for name in names}

    def lacks(self, setting: str, asked: object, fitting: int) -> None:
        """Note that a setting asks for more than there is."""
        wants = "is empty" if asked is None else f"asks for {asked}"
        self.short[setting] = f"{setting} {wants}, {fitting} would fit" if fitting else f"{setting} {wants}, there is none"

    def refuse(self, name: str) -> None:
        """Refuse counts that ask for more than the source `name` has, all of them at once.

        Raises:
            StageError: with numbers that would fit.
        """
        if self.short:
            raise StageError(f"the settings ask for more than {name} has: {'; '.join([*self.short.values(), *self.hints])}")
