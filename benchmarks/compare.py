"""Compare PPO here with the last PPO of trl, side by side on this machine, and print one table.

    make benchmark                        # sets up trl in .venv-trl first
    python benchmarks/compare.py --peer .venv-trl/bin/python --rounds 1 --sizes small

For each size, type of products and kind of lengths, the two sides run in turn. trl uses its bf16 flag for bfloat16. A ratio is
that of samples per second, in the same round; the table has the median over the rounds. The share of the floor is the time that
the matrix products take by themselves, relative to the time of the whole update (floor.py). Each run is added to the file
`--out` as a line of JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

from tabulate import tabulate
from tqdm import tqdm

HERE = Path(__file__).resolve().parent
SIZES = {
    "distilgpt2": {"layers": 6, "width": 768, "heads": 12, "vocab": 50257, "batch": 16, "micro": 16},
    "small": {"layers": 4, "width": 256, "heads": 4, "vocab": 2048, "batch": 64, "micro": 64},
}
TRL = "1.12.0"
LENGTHS = {"fixed": 0.0, "geometric": 0.03}
Run = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", default=".venv-trl/bin/python", help="Python of an environment with trl 1.12.0")
    parser.add_argument("--rounds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--updates", type=int, default=1, help="updates that are counted in a run (default: %(default)s)")
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--dtypes", nargs="+", choices=["float32", "bfloat16"], default=["float32", "bfloat16"])
    parser.add_argument("--lengths", nargs="+", choices=LENGTHS, default=list(LENGTHS))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmark.jsonl"), help="default: %(default)s")
    asked = parser.parse_args()
    if min(asked.rounds, asked.updates) < 1:
        parser.error("--rounds and --updates must be at least 1")
    check_peer(parser, asked.peer)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    settings = list(product(asked.sizes, asked.dtypes, asked.lengths))
    found: dict[tuple[str, ...], list[Run]] = {}
    for number, (size, dtype, lengths) in tqdm([*product(range(asked.rounds), settings)], unit=" settings", disable=None):
        flags = {**SIZES[size], "prompt": 16, "response": 48, "updates": asked.updates, "eos-rate": LENGTHS[lengths]}
        common = [f"--{name}={value}" for name, value in flags.items()]
        runs = {"trl": [asked.peer, "trl_ppo.py", *(["--bf16"] if dtype == "bfloat16" else [])]}
        for critic in ("separate", "shared"):
            runs[critic] = [sys.executable, "ppo.py", f"--critic={critic}", f"--dtype={dtype}", "--floor"]
        for side, (python, script, *own) in runs.items():
            figures = run([python, str(HERE / script), *common, *own])
            found.setdefault((size, dtype, lengths, side), []).append(figures)
            with asked.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"side": side, "size": size, "lengths": lengths, "round": number, **figures}) + "\n")
    print(table(found))


def check_peer(parser: argparse.ArgumentParser, peer: str) -> None:
    """End with one line where `peer` is no Python that has the trl to compare with."""
    question = "import importlib.metadata; print(importlib.metadata.version('trl'))"
    try:
        has = subprocess.run([peer, "-c", question], capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    except OSError as error:
        parser.error(f"--peer: {peer}: {error.strerror}; `make benchmark` makes .venv-trl")
    if has != TRL:
        parser.error(f"--peer: {peer} has {f'trl {has}' if has else 'no trl'}, not trl {TRL}; `make benchmark` makes .venv-trl")


def run(command: list[str]) -> Run:
    """Run a benchmark, and return the figures of its last line."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 (own scripts)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def table(found: dict[tuple[str, ...], list[Run]]) -> str:
    """Return the table of all runs, in Markdown. found: size, type, lengths and side -> the runs of each round."""
    rows = []
    for (size, dtype, lengths, critic), runs in found.items():
        if critic == "trl":
            continue
        peers = found[size, dtype, lengths, "trl"]
        best = [peer["samples_per_s"] for peer in peers]
        if (other := found.get((size, "float32", lengths, "trl"))) is not None:
            best = [max(one, two["samples_per_s"]) for one, two in zip(best, other, strict=True)]
        rows.append(
            {
                "size": size,
                "products": dtype,
                "lengths": lengths,
                "critic": critic,
                "tokens": median(runs, "response_tokens"),
                "trl, s": median(peers, "s_per_update"),
                "ours, s": median(runs, "s_per_update"),
                "rollout, scoring, training, s": ", ".join(
                    f"{median(runs, name):.2f}" for name in ("s_rollout", "s_scoring", "s_training")
                ),
                "speed, trl's same type = 1": ratio(runs, [peer["samples_per_s"] for peer in peers]),
                "speed, trl's best = 1": ratio(runs, best),
                "GFLOP/s of products": round(1000 * median(runs, "tflop") / median(runs, "s_floor")),
                "share of the floor": f"{median(runs, 's_floor') / median(runs, 's_per_update'):.0%}",
                "peak, GiB (trl)": f"{median(runs, 'peak_rss_gib'):.2f} ({median(peers, 'peak_rss_gib'):.2f})",
            }
        )
    return str(tabulate(rows, headers="keys", tablefmt="pipe"))


def median(runs: list[Run], name: str) -> float:
    """Return the median of a figure over the rounds."""
    return statistics.median(one[name] for one in runs)


def ratio(runs: list[Run], peers: list[float]) -> str:
    """Return the median over rounds of our samples per second relative to the peer's."""
    return f"{statistics.median(one['samples_per_s'] / peer for one, peer in zip(runs, peers, strict=True)):.2f}"


if __name__ == "__main__":
    main()
