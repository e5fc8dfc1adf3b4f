"""Load your own preference pairs from files."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from datasets import Dataset

from ..data.files import files_at
from ..data.intake import Intake
from ..data.leaks import apart
from ..data.near_duplicates import sketched
from ..data.pairs import pairs_from_labels, pairs_given, pairs_there
from ..data.selection import splits_of
from ..data.shapes import PREFERENCES
from ..engine.errors import StageError
from ..engine.messages import one_line, shown
from ..engine.records import Row
from .config import RLHFConfig

FEW = 100  # fewer pairs are three optimizer steps of the default batch size or less


def warn_of_few(pairs: Sequence[Row]) -> None:
    """Warn of too few pairs to train a reward model."""
    if len(pairs) < FEW:
        warnings.warn(f"{len(pairs)} pairs are too few to train a reward model; use at least {FEW}", stacklevel=3)


class PreferenceDataProcessor:
    """Preference pairs from files, in any of the shapes of docs/data.md.

    Attributes:
        files: after a load, the number of rows of each file with each outcome, as in reports/data.json.
        dropped: after a load, file, row and reason of each row that was not kept.

    Example:
        >>> processor = PreferenceDataProcessor(RLHFConfig())
        >>> dataset = processor.load_custom_data("data/prepared/preferences.jsonl")  # doctest: +ELLIPSIS
        data/prepared/preferences.jsonl: ... rows, ... kept, 0 rejected, 0 duplicates, 0 overlaps
        ... pairs; ... near-duplicates of held-out pairs are left out
        >>> dataset.column_names
        ['prompt', 'chosen', 'rejected', 'split']
    """

    def __init__(self, config: RLHFConfig) -> None:
        self.config = config
        self.files: dict[str, dict[str, int]] = {}
        self.dropped = pd.DataFrame()

    def load_custom_data(self, path: str | Path) -> Dataset:
        """Load all pairs of a file, a folder or a glob. From labelled texts, make as many pairs as can be matched.

        Prints the number of rows with each outcome.

        Args:
            path: as `data.source`, but in any folder. The settings of `config.data` apply to its columns and labels.

        Returns:
            A data set with the columns prompt, chosen, rejected and split (train, validation or test), sorted by split. If the
            file has messages, further columns have those of each prompt. A file
            without a split in its name is split by a hash of each text, so that new rows move no other row.

        Raises:
            StageError: a file cannot be read, or has no preferences and no labels.

        Warns:
            UserWarning: there are fewer than 100 pairs.
        """
        if not isinstance(path, str | Path) or not str(path).strip():
            raise StageError(f"path should name a file, a folder or a glob (got {shown(path)})")
        self.files, self.dropped = {}, pd.DataFrame()
        data = self.config.data
        files = files_at(str(Path(path).expanduser()), "path")
        source = Intake(files, (*PREFERENCES, "labelled"), data, "path", data.prompt_words, 0.0)
        pairs: list[Row] = []
        for split, table in splits_of(source).items():
            if source.shape == "labelled":
                pairs += pairs_from_labels(source, table, data, "pairs", pairs_there(table, data), split)
            else:
                pairs += pairs_given(source, table, data, "pairs", split)
        held_out = [row["prompt"] + row[side] for row in pairs if row["split"] != "train" for side in ("chosen", "rejected")]
        kept, _ = apart(pairs, "train", sketched(held_out, "near-duplicates"), data.near_duplicate)
        self.files = {file.name: fates for file, fates in zip(files, source.files.values(), strict=True)}
        self.dropped = pd.DataFrame(source.dropped, columns=["file", "row", "reason"])
        for name, fates in self.files.items():
            print(
                f"{one_line(name)}: {fates['rows_read']} rows, {fates['rows_kept']} kept, {fates['rows_rejected']} rejected, "
                f"{fates['duplicates_dropped']} duplicates, {fates['overlap_dropped']} overlaps"
            )
        print(f"{len(kept)} pairs; {len(pairs) - len(kept)} near-duplicates of held-out pairs are left out")
        if not kept:
            raise StageError(f"{path}: its rows ({source.shape}) make no pair")
        warn_of_few(kept)
        columns = dict.fromkeys(name for row in kept for name in row)  # some rows may have messages, and others not
        return Dataset.from_list([{name: row.get(name) for name in columns} for row in kept])
