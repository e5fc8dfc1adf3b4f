"""Faults during a run: a full disk, a folder that cannot be written, too little memory, and damaged files."""

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

from .conftest import RunStage, World, assert_names, outs, the_error

FOLDERS = ("data", "models", "metrics", "plots", "reports")


def assert_refused(world: World, stage: str, run: Callable[[], tuple[int, str]], said: tuple[str, ...]) -> None:
    """Assert that `run` fails with one line besides warnings. The line contains all of `said`, and no out changes."""
    had = outs(world, *FOLDERS)
    status, stderr = run()
    assert status == 1, stderr
    assert_names(the_error(stage, stderr), *said)
    assert outs(world, *FOLDERS) == had
    assert list(world.folder.rglob("*.part")) == []


def fail_in_process(
    world: World, stage: str, *command: str, before: Callable[[], object] | None = None, said: tuple[str, ...]
) -> None:
    """Assert that a command fails as `assert_refused` says. The command runs in a separate process with its own limits."""

    def run() -> tuple[int, str]:
        done = subprocess.run(
            command, cwd=world.folder, env=world.environment(), capture_output=True, text=True, check=False, preexec_fn=before
        )
        return done.returncode, done.stderr

    assert_refused(world, stage, run, said)


@pytest.fixture
def fail(world: World, run_stage: RunStage) -> Callable[..., None]:
    """Return a function that asserts that a stage fails in this process: `fail("ppo", said=("ppo.steps",))`."""

    def run(stage: str, *arguments: str, said: tuple[str, ...]) -> None:
        def ended() -> tuple[int, str]:
            of = run_stage(world, stage, *arguments, status=None)
            return of.status, of.err

        assert_refused(world, stage, ended, said)

    return run


def short_of_disk(kilobytes: int, stage: str) -> tuple[str, ...]:
    """Return a command that runs a stage with a limit on file size. A larger file fails partway, as on a full disk."""
    return "bash", "-c", f"ulimit -f {kilobytes}; exec python stages/{stage}.py"


@pytest.mark.parametrize("stage", ["sft", "ppo"])
def test_a_full_disk_at_a_checkpoint_gives_an_error_and_a_rerun_succeeds(world: World, run_stage: RunStage, stage: str) -> None:
    fail_in_process(world, stage, *short_of_disk(60, stage), said=("step 1", "checkpoint", f".checkpoints/{stage}"))
    run_stage(world, stage)


def test_after_a_full_disk_the_stage_resumes_from_the_last_checkpoint(world: World) -> None:
    """Run each stage in a new process, because the loaded modules are part of a checkpoint's key."""
    world.set("ppo.steps", 3)
    done = world.run("bash", "-c", "python stages/ppo.py; rm -r .checkpoints/ppo/*/000000003 .checkpoints/ppo/*/outs.json")
    assert "checkpoint of step" not in done
    fail_in_process(world, "ppo", *short_of_disk(60, "ppo"), said=("step 3", "checkpoint"))
    assert "checkpoint of step 2" in world.run("python", "stages/ppo.py")


@pytest.mark.parametrize(("stage", "said"), [("ppo", ("models/ppo", "cannot be written")), ("judge", ("models/",))])
def test_a_full_disk_at_an_output_changes_no_out(world: World, stage: str, said: tuple[str, ...]) -> None:
    world.set("checkpoint_every.ppo", None)
    fail_in_process(world, stage, *short_of_disk(8, stage), said=said)


def test_a_read_only_folder_changes_no_out(world: World) -> None:
    def give_up_privileges() -> None:
        if sys.platform == "linux":  # root may write to all files, so drop CAP_DAC_OVERRIDE with PR_CAPBSET_DROP
            ctypes.CDLL(None).prctl(24, 1)

    (world / "models").chmod(0o555)
    try:
        fail_in_process(world, "judge", "python", "stages/judge.py", before=give_up_privileges, said=("Permission denied",))
    finally:
        (world / "models").chmod(0o755)


def test_the_error_for_too_little_memory_names_the_settings_to_lower(world: World) -> None:
    """An allocation fails: the limit is 200 MiB above the memory of the libraries.

    The batch needs far more at once, so that no small allocation fails: a library without memory for its code, or a thread
    without memory for its stack, ends the process.
    """
    prompts = world / "data/prepared/prompts.jsonl"
    rows = prompts.read_text().splitlines(keepends=True)
    trains = [row for row in rows if json.loads(row)["split"] == "train"]
    prompts.unlink()  # DVC may have made it read-only
    prompts.write_text("".join(rows + trains * (2048 // len(trains))))
    world.set("threads", 1)
    world.set("ppo.batch_size", 2048)
    world.set("ppo.micro_batch_size", 2048)
    world.set("ppo.max_new_tokens", 140)
    program = """
import pathlib, resource, runpy, sys
sys.path.insert(0, "stages")
sys.argv = ["stages/ppo.py"]
from rlhf_sentiment.engine.arithmetic import pin_for_stage
pin_for_stage(pathlib.Path("params.yaml"), "ppo")
import ppo
from rlhf_sentiment.engine.params import load
ppo.refuse(load(ppo.Params, ppo.PARAMS).ppo, ppo.PARAMS, ppo.torch.device("cpu"))  # the plan loads more libraries
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (200 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
runpy.run_path("stages/ppo.py", run_name="__main__")
"""
    said = ("memory", "ppo.micro_batch_size", "ppo.batch_size", "ppo.max_new_tokens")
    fail_in_process(world, "ppo", "python", "-c", program, said=said)


def nan(path: Path, name: str) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(path)
    weights[name][:] = float("nan")
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("stage", "model", "weight", "said"),
    [
        ("sft", "base", "transformer.ln_f.weight", ("step 1", "loss is nan", "sft.learning_rate")),
        ("reward", "sft", "transformer.ln_f.weight", ("step 1", "loss is nan", "reward.learning_rate")),
        ("ppo", "reward", "score.weight", ("reward model", "not finite", "ppo.learning_rate")),
        ("ppo", "sft", "transformer.ln_f.weight", ("probabilities", "not finite")),
    ],
)
def test_a_model_with_nan_weights_stops_the_stage(
    world: World, fail: Callable[..., None], stage: str, model: str, weight: str, said: tuple[str, ...]
) -> None:
    nan(world / f"models/{model}/model.safetensors", weight)
    fail(stage, said=said)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_the_error_for_a_damaged_model_names_the_file(world: World, fail: Callable[..., None], name: str) -> None:
    file = world / "models/sft" / name
    file.write_bytes(file.read_bytes()[:-20])
    fail("ppo", said=(f"models/sft/{name}", "cannot be read"))


def test_dvc_repro_restores_weights_with_a_flipped_bit(world: World) -> None:
    """Only the hash of DVC shows that weights were changed. `dvc repro` restores the recorded weights."""
    file = world / "models/sft/model.safetensors"
    whole = file.read_bytes()
    damaged = bytearray(whole)
    damaged[-100] ^= 1
    file.write_bytes(damaged)
    world.run("dvc", "repro", "ppo")
    assert file.read_bytes() == whole


def test_a_reward_model_with_another_tokenizer_is_refused(world: World, fail: Callable[..., None]) -> None:
    file = world / "models/reward/tokenizer.json"
    tree = json.loads(file.read_text())
    vocabulary = tree["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    file.write_text(json.dumps(tree))
    fail("ppo", said=("models/reward", "tokenizer", "models/sft"))


class Planted:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("pwned",)


@pytest.mark.parametrize("folder", ["models/sft", "models/pretrained/planted"])
def test_pickled_weights_are_not_opened(world: World, fail: Callable[..., None], folder: str) -> None:
    if folder != "models/sft":
        shutil.copytree(world / "models/sft", world / folder)
        world.set("base.model", folder)
    (world / folder / "model.safetensors").unlink()
    (world / folder / "pytorch_model.bin").write_bytes(pickle.dumps(Planted()))
    fail("ppo" if folder == "models/sft" else "base", said=("model.safetensors",))
    assert not (world / "pwned").exists()


def test_a_changed_library_version_gives_a_warning(world: World, run_stage: RunStage) -> None:
    record = world / "runs/environment/judge.json"
    record.write_text(record.read_text().replace('"scikit-learn": "', '"scikit-learn": "0.'))
    assert_names(run_stage(world, "judge").err, "judge: warning: scikit-learn", "last run", "had 0.")
    assert "warning" not in run_stage(world, "judge").err, "the record is now of the last run"
    record.unlink()
    pins = world / "requirements.txt"
    pins.write_text(pins.read_text().replace("scikit-learn==", "scikit-learn==0."))
    assert_names(run_stage(world, "judge").err, "judge: warning: scikit-learn", "requirements.txt pins 0.")


def test_control_characters_and_markup_in_a_prompt_have_no_effect(
    world: World, run_stage: RunStage, fail: Callable[..., None]
) -> None:
    typed = "\x1b[31mred \x9b1m \u202eright [bold]b[/bold] <b>b</b> | `c`"
    printed = run_stage(world, "compare", "--prompt", typed).out
    assert "�[31mred �1m �right [bold]b[/bold] <b>b</b> | `c`" in printed
    assert all(line.isprintable() for line in printed.split("\n"))
    fail("compare", "--prompt", f"{typed}{' film' * 1000}", said=(r"'\x1b[31mred \x9b1m \u202e",))
