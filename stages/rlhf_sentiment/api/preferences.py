"""Your own preferences, from files in any of the shapes of docs/data.md."""

from pathlib import Path

import pandas as pd
from datasets import Dataset

from ..data.files import files_at
from ..data.intake import Intake
from ..data.near_duplicates import sketched
from ..data.shapes import PREFERENCES
from ..data.tables import apart, pairs_from_labels, pairs_given, pairs_there, splits_of
from ..engine.errors import StageError
from ..engine.messages import one_line, shown
from ..engine.records import Row
from .config import RLHFConfig


class PreferenceDataProcessor:
    """Preference pairs from files, in any of the shapes of docs/data.md.

    Attributes:
        files: after a load, how many rows of each file had which fate, as in metrics/data.json.
        dropped: the rows that were not kept: file, row, reason.

    Example:
        >>> processor = PreferenceDataProcessor(RLHFConfig())
        >>> dataset = processor.load_custom_data("data/prepared/preferences.jsonl")  # doctest: +ELLIPSIS
        data/prepared/preferences.jsonl: ... rows, ... kept, 0 rejected, 0 duplicates, 0 overlaps
        ... pairs, without ... that nearly equal held-out ones
        >>> dataset.column_names
        ['prompt', 'chosen', 'rejected', 'split']
    """

    def __init__(self, config: RLHFConfig) -> None:
        self.config = config
        self.files: dict[str, dict[str, int]] = {}
        self.dropped = pd.DataFrame()

    def load_custom_data(self, path: str | Path) -> Dataset:
        """All pairs of a file, a folder or a glob; of labelled texts, as many as can be matched.

        Prints what became of the rows.

        Args:
            path: as `data.source`, but anywhere. The settings of `config.data` say what its columns and labels mean.

        Returns:
            Columns prompt, chosen, rejected and split: train, validation or test, by a hash of the text where the files do
            not say, so that more rows move nobody. Those of one split stand together.

        Raises:
            StageError: a file cannot be read, or has no preferences and no labels; it says where and what would be right.
        """
        if not isinstance(path, str | Path) or not str(path).strip():
            raise StageError(f"path should name a file, a folder or a glob (got {shown(path)})")
        self.files, self.dropped = {}, pd.DataFrame()
        data = self.config.data
        files = files_at(str(Path(path).expanduser()), "path")
        source = Intake(files, (*PREFERENCES, "labelled"), data, "data.source", data.prompt_words, 0.0)
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
        print(f"{len(kept)} pairs, without {len(pairs) - len(kept)} that nearly equal held-out ones")
        if not kept:
            raise StageError(f"{path}: no pair can be made of its rows ({source.shape})")
        return Dataset.from_list(kept)
