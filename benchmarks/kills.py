"""Kill the pipeline at random moments, and compare its outputs with those of a run that was not killed.

    python benchmarks/kills.py --kills 100

The pipeline is the tiny one of the tests, with a checkpoint at every step (base: at every fourth). The benchmark starts the
commands of `make repro`. After a random time it sends SIGKILL to dvc, to the stage, or to both. It starts the commands again
until the pipeline is finished, compares the outputs, and begins another pipeline, until all kills are done. It prints which
process was killed in which stage, and which outputs differ.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pandas as pd
import psutil
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.conftest import REPRO, World, checkout, outs, tiny_params  # noqa: E402

FOLDERS = ("data", "models", "metrics", "plots", "reports")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--longest", type=float, default=25.0, help="seconds before a kill, at most; default: %(default)s")
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)  # noqa: S311 (moments, not secrets)
    rows: list[dict[str, str]] = []
    pipelines = differing = mended = 0
    with tempfile.TemporaryDirectory() as scratch, tqdm(total=arguments.kills, unit=" kills") as bar:
        reference = checkout(Path(scratch) / "reference", tiny_params())
        reference.run("dvc", "repro")
        while len(rows) < arguments.kills:
            world = checkout(Path(scratch) / "world", tiny_params())
            finished = False
            while not finished:
                patience = rng.uniform(0, arguments.longest) if len(rows) < arguments.kills else float("inf")
                hit, said = attempt(world, Path(scratch) / "log", patience, rng.choice(["dvc and stage", "stage", "dvc"]))
                mended += said.count("mend: ")
                finished = hit is None
                if hit is not None:
                    rows.append(hit)
                    bar.update()
            pipelines += 1
            wrong = differences(reference, world)
            bar.write("\n".join(f"differs: {name}" for name in wrong) or f"pipeline {pipelines}: the same bytes")
            differing += len(wrong)
            shutil.rmtree(world.folder)
    table = pd.DataFrame(rows)
    print(pd.crosstab(table["stage"], table["whom"], margins=True).to_string())
    print(f"{len(rows)} kills in {pipelines} pipelines; {mended} files restored; {differing} files differ")
    sys.exit(1 if differing else 0)


def attempt(world: World, log: Path, patience: float, whom: str) -> tuple[dict[str, str] | None, str]:
    """Start the pipeline, and kill it after `patience` seconds.

    Returns:
        The stage and the process that were killed (None if the pipeline finished first), and the output of the pipeline.

    Raises:
        SystemExit: the pipeline failed by itself, or a stage did not resume from its newest checkpoint.
    """
    before = {stage: world.newest(stage) for stage in ("base", "sft", "reward", "ppo")}
    log.unlink(missing_ok=True)  # a stage that runs longer than its dvc still writes to the old file
    with open(log, "w") as file:
        dvc = subprocess.Popen(  # noqa: S603 (a constant command)
            ["bash", "-c", REPRO],  # noqa: S607 (bash is found as in a shell)
            cwd=world.folder,
            env=world.environment(),
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    deadline = time.monotonic() + patience
    while dvc.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    hit = None
    if dvc.poll() is None:
        stage, process = at_work(dvc.pid)
        whom = whom if process else "dvc and stage"
        hit = {"stage": stage, "whom": whom}
        try:
            if whom == "dvc and stage":
                os.killpg(dvc.pid, signal.SIGKILL)
            else:
                (process if whom == "stage" and process else dvc).kill()
        except (ProcessLookupError, psutil.NoSuchProcess):  # the process ended just before
            pass
        dvc.wait()
    said = log.read_text()
    if hit is None and dvc.returncode:
        sys.exit(f"it failed:\n{said}")
    for stage, step in before.items():
        went_on = re.search(rf"{stage}: goes on from its checkpoint of step (\d+)\n", said)
        if step and f"{stage}: wrote" in said and (went_on is None or int(went_on[1]) < step):
            sys.exit(f"{stage} did not go on from step {step}:\n{said}")
    return hit, said


def at_work(dvc: int) -> tuple[str, psutil.Process | None]:
    """Return the name of the running stage and its process."""
    try:
        for child in psutil.Process(dvc).children(recursive=True):
            for word in child.cmdline():
                if found := re.fullmatch(r"stages/(\w+)\.py", word):
                    return found[1], child
    except psutil.Error:
        pass
    return "none, dvc itself", None


def differences(one: World, other: World) -> list[str]:
    """Return the names of the files that differ, or that only one of the two worlds has."""
    first, second = outs(one, *FOLDERS), outs(other, *FOLDERS)
    wrong = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
    return wrong + ["dvc.lock"] * ((one / "dvc.lock").read_bytes() != (other / "dvc.lock").read_bytes())


if __name__ == "__main__":
    main()
