"""Measure the time and the memory of the prepare stage on many labelled texts.

    python benchmarks/prepare.py --rows 1000000

The texts are generated. They are as long as film reviews: 230 words in the mean, log-normal. Their 20,000 different words
follow Zipf's law. Each label has half of the rows. One row in a hundred is a duplicate, and one in a hundred is a
near-duplicate. The stage runs as a command in a folder of its own, with the default settings.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import yaml

ROOT = Path(__file__).resolve().parent.parent


def write_texts(file: Path, rows: int, seed: int = 0) -> None:
    """Write a file of JSON lines with `text` and `label`."""
    rng = np.random.default_rng(seed)
    vocabulary = np.array([f"{'aeiou'[rank % 5]}{rank:x}" for rank in range(20_000)])
    weights = 1 / np.arange(1, 20_001)
    edges = np.cumsum(weights / weights.sum())
    before = ""
    with open(file, "w", encoding="utf-8") as lines:
        for start in range(0, rows, 1000):
            lengths = np.clip(rng.lognormal(5.2, 0.65, size=min(1000, rows - start)).astype(int), 8, 2000)
            words = vocabulary[np.searchsorted(edges, rng.random(lengths.sum()))]
            kinds = rng.random(len(lengths))
            for part, kind in zip(np.split(words, np.cumsum(lengths)[:-1]), kinds, strict=True):
                text = before if before and kind < 0.01 else f"{before} Indeed." if before and kind < 0.02 else " ".join(part)
                lines.write(json.dumps({"text": text, "label": int(rng.random() < 0.5)}) + "\n")
                before = text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="default: %(default)s")
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        world = Path(folder)
        (world / "data/raw").mkdir(parents=True)
        params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
        params["data"]["source"] = "data/raw/texts.jsonl"
        (world / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")
        write_texts(world / "data/raw/texts.jsonl", rows)
        size = (world / "data/raw/texts.jsonl").stat().st_size
        (world / "data/hashes").mkdir()
        (world / "data/hashes/prepare.json").write_text("{}\n", encoding="utf-8")
        start = time.perf_counter()
        stage = subprocess.Popen([sys.executable, ROOT / "stages/prepare.py"], cwd=world)  # noqa: S603 (own scripts)
        _, status, usage = os.wait4(stage.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            sys.exit("prepare failed")
        print((world / "metrics/data.json").read_text(encoding="utf-8"))
        print(f"{rows} rows, {size / 2**30:.2f} GiB: {seconds:.0f} s, at most {usage.ru_maxrss / 2**20:.2f} GiB of memory")


if __name__ == "__main__":
    main()
