"""The kept results of the seeds, below docs/results. New statistics need nothing else.

seeds.csv                    a row for each seed: its commit, the MD5 of its dvc.lock, and the numbers of all metrics files
seeds/answers-SEED.csv.gz    the judged answers, as `evaluate` wrote them
seeds/curves.csv             what PPO measured: seed, curve, step, value
"""

import hashlib
import json
import shutil
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import revisions
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.messages import shown
from rlhf_sentiment.engine.outputs import writing
from rlhf_sentiment.engine.records import read_table, write_table

TABLE, FOLDER = Path("docs/results/seeds.csv"), Path("docs/results/seeds")
CURVES = FOLDER / "curves.csv"
JUDGED = "reports/answers.csv.gz"
# The columns of text in each table. All others are numbers.
_TEXTS = {TABLE: ["commit", "lock"], CURVES: ["curve"]}
# The columns that distinguish the rows of each table, in their order.
_KEYS = {TABLE: ["seed"], CURVES: ["seed", "curve", "step"]}

# The curves: their name, and the file and the column that they come from.
_CURVES = {
    "score": ("plots/ppo.csv", "score"),
    "kl": ("plots/ppo.csv", "kl_penalty"),
    "entropy": ("plots/ppo.csv", "entropy"),
    "validation_score": ("plots/ppo_validation.csv", "score"),
    "validation_kl": ("plots/ppo_validation.csv", "kl"),
}


def keep(root: Path, ran: Path, seed: int, commit: str) -> None:
    """Keep the results of a seed, in the place of its older ones. The row comes last, so a row has its other files.

    Args:
        root: the repository, which keeps them.
        ran: the folder in which the seed ran.
        seed: the seed.
        commit: the commit of its code and settings.

    Raises:
        StageError: a result is missing or damaged.
    """
    row: dict[str, Any] = {"seed": seed, "commit": commit, "lock": hashlib.md5((ran / "dvc.lock").read_bytes()).hexdigest()}  # noqa: S324 (DVC's hash)
    row |= numbers(ran / "metrics")
    with writing(answers_file(root, seed)) as aside:
        shutil.copyfile(ran / JUDGED, aside)
    _replace(root, CURVES, seed, curves_of(ran, seed))
    _replace(root, TABLE, seed, pd.DataFrame([row]))


def _replace(root: Path, name: Path, seed: int, new: pd.DataFrame) -> None:
    old = read(root, name)
    kept = [old[old["seed"] != seed], new] if len(old) else [new]
    write_table(root / name, pd.concat(kept).sort_values(_KEYS[name], kind="stable"))


def read(root: Path, name: Path) -> pd.DataFrame:
    """Return a kept table, `TABLE` or `CURVES`. It is empty where the file is missing.

    Raises:
        StageError: the file is damaged, or has a row twice, as after a merge that kept both sides.
    """
    if not (root / name).is_file():
        return pd.DataFrame({"seed": []})
    mend = f"`git checkout {name}` brings back the committed file; `make seeds` makes it again where there is none"
    texts, keys = _TEXTS[name], _KEYS[name]
    _table(root, name, [*keys, *texts], mend)
    # As text, because pandas would read a hash such as 12e4 as a number.
    cells = pd.read_csv(root / name, dtype=str, keep_default_na=False).fillna("")
    names = [str(column) for column in cells]
    table = cells.assign(**{column: pd.to_numeric(cells[column], errors="coerce") for column in names if column not in texts})
    for column in names:
        if column in texts:
            right = cells[column] != ""
        elif column == "seed":
            right = cells[column].str.fullmatch("[0-9]{1,10}")
        else:
            right = cells[column].isin(["", "nan"]) | np.isfinite(table[column])
        _refuse(~right, name, cells[column], f"; {mend}")
    _refuse(table.duplicated(keys), name, cells["seed"], f", and an earlier line has the same {' and '.join(keys)}; delete one")
    return table


def _table(root: Path, name: Path, columns: Sequence[str], mend: str) -> pd.DataFrame:
    """Return a CSV below a repository. An error says what to do about a damaged file."""
    try:
        return read_table(root / name, columns)
    except StageError as error:
        said = str(error).removeprefix(f"{root}/").removesuffix("; run `dvc repro`")
    except (OSError, EOFError, zlib.error) as error:  # not gzip, or cut off
        said = f"{name}: damaged: {error}"
    raise StageError(f"{said}; {mend}")


def _refuse(wrong: pd.Series, name: Path, cells: pd.Series, mend: str) -> None:
    """Refuse a table that has wrong cells in a column. The message names the line of the first one."""
    if wrong.any():
        place = int(wrong.to_numpy().argmax())
        raise StageError(f"{name}, line {place + 2}: {cells.name} is {shown(str(cells[place]))}{mend}")


def answers_file(root: Path, seed: int) -> Path:
    """Return the path of the judged answers of a seed."""
    return root / FOLDER / f"answers-{seed}.csv.gz"


def read_answers(root: Path, seed: int) -> pd.DataFrame:
    """Return the judged answers of a seed: prompt, model, sample, classifier_positive and other columns.

    Raises:
        StageError: the file is missing or damaged.
    """
    name = answers_file(root, seed).relative_to(root)
    mend = f"`make seeds SEEDS={seed}` makes it again"
    if not (root / name).is_file():
        raise StageError(f"{name}: missing; {mend}")
    table = _table(root, name, ["prompt", "model", "sample", "classifier_positive"], mend)
    positive = table["classifier_positive"]
    wrong = pd.to_numeric(positive, errors="coerce").isna()
    _refuse(wrong, name, positive, f"; {mend}")
    return table


def numbers(folder: Path) -> dict[str, float]:
    """Return the numbers of the metrics files in a folder, such as `evaluation.rlhf.mean_positive`."""
    found: dict[str, float] = {}
    for file in sorted(folder.glob("*.json")):
        found |= revisions.numbers(json.loads(file.read_text(encoding="utf-8")), f"{file.stem}.")
    return found


def curves_of(ran: Path, seed: int) -> pd.DataFrame:
    """Return the curves of PPO in a folder in which a seed ran: seed, curve, step, value."""
    tables = [
        read_table(ran / file, ["step", column])[["step", column]].set_axis(["step", "value"], axis=1).assign(curve=curve)
        for curve, (file, column) in _CURVES.items()
    ]
    return pd.concat(tables).assign(seed=seed)[["seed", "curve", "step", "value"]]
