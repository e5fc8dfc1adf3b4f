"""What the world does to a run: a full disk, a folder that cannot be written, memory that is short, files that are damaged."""

import ctypes
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from .conftest import World, outs

FOLDERS = ("data", "models", "metrics", "plots", "reports")


def own(world: World) -> None:
    """Copies in place of links to DVC's cache, so that a fault does not pass on to it."""
    for name in ("data", "models"):
        shutil.copytree(world / name, world / "copy")
        shutil.rmtree(world / name)
        (world / "copy").rename(world / name)


def fail(world: World, *command: str, before: Callable[[], object] | None = None, said: str) -> None:
    """Run a command that must fail with one line beside warnings, which has `said`, and change nothing that was there."""
    had = outs(world, *FOLDERS)
    done = subprocess.run(
        command, cwd=world.folder, env=world.environment(), capture_output=True, text=True, check=False, preexec_fn=before
    )
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = (line for line in done.stderr.splitlines() if ": warning: " not in line)
    assert said in line
    assert outs(world, *FOLDERS) == had
    assert list(world.folder.rglob("*.part")) == []


def short_of_disk(kilobytes: int, stage: str) -> tuple[str, ...]:
    """A stage none of whose files may be larger: the write fails in the middle, as on a full disk."""
    return "bash", "-c", f"ulimit -f {kilobytes}; exec python stages/{stage}.py"


@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_a_disk_that_is_full_at_a_checkpoint(world: World, stage: str) -> None:
    fail(world, *short_of_disk(60, stage), said=f"{stage}: step 1: no checkpoint could be written below .checkpoints/{stage}: ")
    world.run("python", f"stages/{stage}.py")


def test_the_last_good_checkpoint_survives_a_full_disk(world: World) -> None:
    world.set("ppo.steps", 3)
    done = world.run("bash", "-c", "python stages/ppo.py; rm -r .checkpoints/ppo/*/000000003 .checkpoints/ppo/*/outs.json")
    assert "goes on" not in done
    fail(world, *short_of_disk(60, "ppo"), said="ppo: step 3: no checkpoint")
    assert "ppo: goes on from its checkpoint of step 2" in world.run("python", "stages/ppo.py")


@pytest.mark.parametrize(("stage", "said"), [("ppo", "ppo: models/ppo cannot be written: "), ("judge", "judge: models/")])
def test_a_disk_that_is_full_at_an_output(world: World, stage: str, said: str) -> None:
    world.set("checkpoint_every.ppo", None)
    fail(world, *short_of_disk(8, stage), said=said)


def test_a_folder_that_cannot_be_written(world: World) -> None:
    def give_up_privileges() -> None:
        if sys.platform == "linux":  # root may write anywhere: PR_CAPBSET_DROP of CAP_DAC_OVERRIDE
            ctypes.CDLL(None).prctl(24, 1)

    (world / "models").chmod(0o555)
    try:
        fail(world, "python", "stages/judge.py", before=give_up_privileges, said="Permission denied")
    finally:
        (world / "models").chmod(0o755)


def test_memory_that_is_not_enough_names_the_setting_to_lower(world: World) -> None:
    """An allocation that fails: the stage may have 40 MiB more than its libraries took.

    One thread, since a thread that cannot have its stack ends the process.
    """
    world.variables["OMP_NUM_THREADS"] = "1"
    world.set("ppo.batch_size", 32)
    world.set("ppo.micro_batch_size", 32)
    world.set("ppo.max_new_tokens", 140)
    program = """
import resource, runpy, sys
sys.path.insert(0, "stages")
sys.argv = ["stages/ppo.py"]
import ppo
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (40 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
runpy.run_path("stages/ppo.py", run_name="__main__")
"""
    said = "ppo: memory is not enough; lower ppo.micro_batch_size, ppo.batch_size or ppo.max_new_tokens"
    fail(world, "python", "-c", program, said=said)


def nan(path: Path, name: str) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(path)
    weights[name][:] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("stage", "model", "weight", "said"),
    [
        ("sft", "base", "transformer.ln_f.weight", "sft: step 1: loss is nan; lower sft.learning_rate"),
        ("reward", "sft", "transformer.ln_f.weight", "reward: step 1: loss is nan; lower reward.learning_rate"),
        ("ppo", "reward", "score.weight", "ppo: the reward model's score is not finite; lower ppo.learning_rate, or look at"),
        ("ppo", "sft", "transformer.ln_f.weight", "ppo: the model's probabilities are not finite; train it at a lower"),
    ],
)
def test_a_model_that_is_not_a_number_stops_the_stage(world: World, stage: str, model: str, weight: str, said: str) -> None:
    own(world)
    nan(world / f"models/{model}/model.safetensors", weight)
    fail(world, "python", f"stages/{stage}.py", said=said)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_model_names_the_file(world: World, name: str) -> None:
    own(world)
    file = world / "models/sft" / name
    file.write_bytes(file.read_bytes()[:-20])
    fail(world, "python", "stages/ppo.py", said=f"ppo: models/sft/{name} cannot be read")


def test_a_flipped_bit_is_seen_by_dvc(world: World) -> None:
    """Weights of another value are weights: DVC's hash tells, and `dvc repro` brings the recorded ones back."""
    own(world)
    file = world / "models/sft/model.safetensors"
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[-100] ^= 1
    file.write_bytes(damaged)
    world.run("dvc", "repro", "ppo")
    assert file.read_bytes() == whole


def test_a_reward_model_with_another_tokenizer_is_refused(world: World) -> None:
    own(world)
    file = world / "models/reward/tokenizer.json"
    tree = json.loads(file.read_text())
    vocabulary = tree["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(tree))
    fail(world, "python", "stages/ppo.py", said="ppo: models/reward has another tokenizer than models/sft")


class Planted:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize("folder", ["models/sft", "models/pretrained/planted"])
def test_weights_that_are_a_pickle_are_not_opened(world: World, folder: str) -> None:
    own(world)
    if folder != "models/sft":
        shutil.copytree(world / "models/sft", world / folder)
        world.set("base.model", folder)
    (world / folder / "model.safetensors").unlink()
    (world / folder / "pytorch_model.bin").write_bytes(pickle.dumps(Planted()))
    fail(world, "python", f"stages/{'ppo' if folder == 'models/sft' else 'base'}.py", said="model.safetensors")
    assert not (world / "pwned").exists()


def test_a_library_that_changed_is_said_at_the_start(world: World) -> None:
    record = world / "runs/environment/judge.json"
    record.write_text(record.read_text().replace('"scikit-learn": "', '"scikit-learn": "0.'))
    said = world.run("python", "stages/judge.py")
    assert "judge: warning: scikit-learn is " in said
    assert "and the last run here had 0." in said
    assert "warning" not in world.run("python", "stages/judge.py"), "the record is of the run since"
    record.unlink()
    pins = world / "requirements.txt"
    pins.write_text(pins.read_text().replace("scikit-learn==", "scikit-learn==0."))
    assert "and requirements.txt pins 0." in world.run("python", "stages/judge.py")


def test_what_people_type_is_shown_and_obeyed_by_nothing(world: World) -> None:
    typed = "\x1b[31mred \x9b1m \u202eright [bold]b[/bold] <b>b</b> | `c`"
    printed = world.run("python", "stages/compare.py", "--prompt", typed)
    assert "�[31mred �1m �right [bold]b[/bold] <b>b</b> | `c`" in printed
    assert all(line.isprintable() for line in printed.split("\n"))
    fail(world, "python", "stages/compare.py", "--prompt", f"{typed}{' film' * 1000}", said=r"'\x1b[31mred \x9b1m \u202e")
