"""Measure how long each stage takes to start: its `--help`, and its imports.

    python benchmarks/startup.py --rounds 5

The unit is processor seconds (user and system) of a child process. The imports of a stage are compared with the import of one
class that it needs. Each round measures everything once, in turn, and a ratio is that of the medians. The exit status is 1 if a
figure is above its limit. The last line is the result, as JSON.

To import a script as a module runs its imports, and nothing else: not `begin`, and not the stage.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STAGES = ROOT / "stages"
CLASSES = {
    "GPT2LMHeadModel": "from transformers import GPT2LMHeadModel",
    "Trainer": "from transformers import Trainer",
    "SFTTrainer": "from trl import SFTTrainer",
}
# Stage -> the class, and the largest ratio.
RATIOS = {
    "base": ("Trainer", 1.15),
    "sft": ("SFTTrainer", 1.1),
    "reward": ("SFTTrainer", 1.1),
    "ppo": ("GPT2LMHeadModel", 1.15),
    "sample": ("GPT2LMHeadModel", 1.15),
    "evaluate": ("GPT2LMHeadModel", 1.6),
}
NAMES = ("ConfigError", "RLHFConfig", "StageError")  # of the package, without torch
MOST_HELP, MOST_NAME = 0.3, 1.0  # seconds


def processor_seconds(*arguments: str) -> float:
    """Return the processor time of a Python process that must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, check=True)  # noqa: S603 (fixed words)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: %(default)s")
    rounds = parser.parse_args().rounds

    of_stages = f"import sys; sys.path[0] = {str(STAGES)!r}; "
    commands = {f"class {name}": ("-c", program) for name, program in CLASSES.items()}
    for script in sorted(STAGES.glob("*.py")):
        commands[f"imports of {script.stem}"] = ("-c", f"{of_stages}import {script.stem}")
        commands[f"{script.stem} --help"] = (str(script), "--help")
    for name in NAMES:
        commands[f"name {name}"] = ("-c", f"{of_stages}from rlhf_sentiment import {name}")

    found: dict[str, list[float]] = {what: [] for what in commands}
    for _ in range(rounds + 1):  # the first round only fills the caches of files and of bytecode
        for what, command in commands.items():
            found[what].append(processor_seconds(*command))
    seconds = {what: statistics.median(each[1:]) for what, each in found.items()}

    above = []
    print("| | seconds | of | ratio | limit |\n|---|---:|---|---:|---:|")
    for what, value in seconds.items():
        stage = what.removeprefix("imports of ")
        name, most = RATIOS.get(stage, ("", MOST_HELP if "--help" in what else MOST_NAME if what.startswith("name ") else None))
        ratio = value / seconds[f"class {name}"] if name else None
        if most is not None and (ratio or value) > most:
            above.append(what)
        print(f"| {what} | {value:.2f} | {name} | {'' if ratio is None else f'{ratio:.2f}'} | {most or ''} |")
    for what in above:
        print(f"above its limit: {what}")
    print(json.dumps({what: round(value, 3) for what, value in seconds.items()}))
    return int(bool(above))


if __name__ == "__main__":
    sys.exit(main())
