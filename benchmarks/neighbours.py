"""Measure how much spinning threads of one PPO run slow down a second run on the same machine.

    python benchmarks/neighbours.py

Each setting of libgomp (its default, the setting of the stages, and others) prints one JSON line. The line has the samples per
second of one PPO run alone, and the mean of two runs at once.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

SIZES = {"layers": 2, "width": 128, "heads": 4, "vocab": 2048, "batch": 32, "micro": 32, "prompt": 16, "response": 48}
WAITS: list[dict[str, str]] = [
    {},
    {"OMP_WAIT_POLICY": "passive"},
    {"GOMP_SPINCOUNT": "100"},
    {"GOMP_SPINCOUNT": "1000"},
    {"GOMP_SPINCOUNT": "10000"},
]


def samples_per_second(together: int, updates: int, wait: dict[str, str]) -> float:
    """Return the mean samples per second of `together` PPO runs at once."""
    options = [word for name, size in SIZES.items() for word in (f"--{name}", str(size))]
    command = [sys.executable, str(Path(__file__).parent / "ppo.py"), "--updates", str(updates), *options]
    own = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")} | wait
    running = [
        subprocess.Popen(command, env=own, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)  # noqa: S603 (ppo.py)
        for _ in range(together)
    ]
    said = [process.communicate()[0].splitlines()[-1] for process in running]
    return sum(float(json.loads(line)["samples_per_s"]) for line in said) / together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=8, help="updates that are counted (default: %(default)s)")
    updates = parser.parse_args().updates
    for wait in WAITS:
        alone, two = (samples_per_second(together, updates, wait) for together in (1, 2))
        name = " ".join(f"{key}={value}" for key, value in wait.items()) or "default"
        print(json.dumps({"wait": name, "alone": round(alone, 1), "two at once": round(two, 1)}), flush=True)


if __name__ == "__main__":
    main()
