"""The kept results of the seeds, below docs/results. New statistics need nothing else.

seeds.csv                    a row for each seed: its commit, the MD5 of its dvc.lock, and the numbers of all metrics files
seeds/answers-SEED.csv.gz    the judged answers, as `evaluate` wrote them
seeds/curves.csv             what PPO measured: seed, curve, step, value
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd

import revisions
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.outputs import writing
from rlhf_sentiment.engine.records import read_table, write_table

TABLE, FOLDER = Path("docs/results/seeds.csv"), Path("docs/results/seeds")
CURVES = FOLDER / "curves.csv"
JUDGED = "reports/answers.csv.gz"

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
    _replace(root / CURVES, seed, curves_of(ran, seed), ["seed", "curve", "step"])
    _replace(root / TABLE, seed, pd.DataFrame([row]), ["seed"])


def _replace(path: Path, seed: int, new: pd.DataFrame, order: list[str]) -> None:
    old = read(path)
    kept = [old[old["seed"] != seed], new] if len(old) else [new]
    write_table(path, pd.concat(kept).sort_values(order, kind="stable"))


def read(path: Path) -> pd.DataFrame:
    """Return a kept table. It is empty where the file is missing.

    Raises:
        StageError: the file is damaged.
    """
    if not path.is_file():
        return pd.DataFrame({"seed": []})
    table = read_table(path, ["seed"])
    # pandas would read a hash such as 12e4 as a number
    names = [name for name in ("commit", "lock") if name in table]
    return table.assign(**pd.read_csv(path, dtype=str, usecols=names)) if names else table


def answers_file(root: Path, seed: int) -> Path:
    """Return the path of the judged answers of a seed."""
    return root / FOLDER / f"answers-{seed}.csv.gz"


def read_answers(root: Path, seed: int) -> pd.DataFrame:
    """Return the judged answers of a seed: prompt, model, sample, classifier_positive and other columns.

    Raises:
        StageError: the file is missing or damaged.
    """
    path = answers_file(root, seed)
    if not path.is_file():
        raise StageError(f"{path.relative_to(root)}: missing; `make seeds SEEDS={seed}` makes it")
    try:
        return read_table(path, ["prompt", "model", "sample", "classifier_positive"])
    except (OSError, EOFError) as error:  # not gzip, or cut off
        raise StageError(f"{path.relative_to(root)}: damaged ({error}); `make seeds SEEDS={seed}` makes it again") from None


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
