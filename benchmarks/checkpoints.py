"""Measure the share of the PPO stage's time that goes into checkpoints.

    dvc repro && python benchmarks/checkpoints.py

The stage runs with params.yaml on copies of the last run's models. The benchmark adds up the time of four
steps: hash the key, look for a checkpoint, write each checkpoint (with checksums and syncs), and mark the end. The last line is
the result, as JSON.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "stages"))
from rlhf_sentiment.engine.arithmetic import pin_for_stage  # noqa: E402

pin_for_stage(Path("params.yaml"), "ppo")  # before the next line loads numpy and torch
import ppo  # noqa: E402
from rlhf_sentiment.engine.params import load  # noqa: E402
from rlhf_sentiment.engine.stage import keep_freed_memory  # noqa: E402
from rlhf_sentiment.training.checkpoints import Checkpoints  # noqa: E402

spent: dict[str, list[float]] = {}


def timed(name: str) -> None:
    """Make `Checkpoints.<name>` record its seconds in `spent`."""
    method = getattr(Checkpoints, name)

    def call(*arguments: Any) -> Any:
        start = time.perf_counter()
        try:
            return method(*arguments)
        finally:
            spent.setdefault(name, []).append(time.perf_counter() - start)

    setattr(Checkpoints, name, call)


def timed_block(method: Callable[..., Any]) -> Any:
    """Wrap `Checkpoints.writing`, and record the seconds of its whole block in `spent`."""

    @contextmanager
    def block(*arguments: Any) -> Any:
        start = time.perf_counter()
        with method(*arguments) as folder:
            yield folder
        spent.setdefault("writing", []).append(time.perf_counter() - start)

    return block


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    keep_freed_memory()
    for name in ("__init__", "newest", "finish"):
        timed(name)
    Checkpoints.writing = timed_block(Checkpoints.writing)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory(dir=ROOT) as scratch:  # on the same disk
        for path in ("params.yaml", *ppo.READS):
            (target := Path(scratch) / path).parent.mkdir(parents=True, exist_ok=True)
            (shutil.copytree if Path(path).is_dir() else shutil.copy)(ROOT / path, target)
        os.chdir(scratch)
        start = time.perf_counter()
        ppo.main(load(ppo.Params, Path("params.yaml")))
        total = time.perf_counter() - start
        os.chdir(ROOT)
    cost = {name: round(sum(times), 3) for name, times in spent.items()}
    share = sum(cost.values()) / total
    print(json.dumps({"seconds": round(total, 1), "checkpoints": len(spent["writing"]), **cost, "share": round(share, 4)}))


if __name__ == "__main__":
    main()
