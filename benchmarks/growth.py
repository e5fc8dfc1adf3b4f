"""Fit how the time of a PPO update grows with the batch size and with the length of responses.

    python benchmarks/growth.py --layers 4 --width 256 --heads 4 --vocab 2048

The benchmark runs ppo.py of this folder for responses of 64 to 1,024 tokens and for batches of 8 to 64. Options of ppo.py are
passed on. Each run prints one JSON line. The last line has the exponents of time = c * size^exponent, fitted by least squares
of the logarithms. It also has the exponents of the floating-point operations of products and attention.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

SWEEPS = {"response": (64, 128, 256, 512, 1024), "batch": (8, 16, 32, 64)}
FIXED = {"response": 64, "batch": 16, "micro": 16, "epochs": 1, "updates": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    _, passed_on = parser.parse_known_args()
    own = {f"--{name}" for name in FIXED}
    if taken := [word for word in passed_on if word.split("=")[0] in own]:
        parser.error(f"{taken[0]} is chosen here; pass on only other options of ppo.py")
    exponents: dict[str, dict[str, float]] = {}
    for flag, sizes in SWEEPS.items():
        runs = []
        for size in sizes:
            flags = [f"--{name}={value}" for name, value in (FIXED | {flag: size}).items()]
            command = [sys.executable, str(Path(__file__).with_name("ppo.py")), "--floor", *flags, *passed_on]
            done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)  # noqa: S603 (own scripts)
            if done.returncode:
                sys.exit(done.returncode)  # ppo.py has said why
            figures = json.loads(done.stdout.splitlines()[-1])
            print(json.dumps(figures), flush=True)
            runs.append(figures)
        exponents[flag] = {
            name: round(float(np.polyfit(np.log(sizes), np.log(values), 1)[0]), 3)
            for name, values in (
                ("time", [one["s_per_update"] for one in runs]),
                ("operations", [one["tflop"] + one["tflop_attention"] for one in runs]),
            )
        }
    print(json.dumps({"exponents": exponents}))


if __name__ == "__main__":
    main()
