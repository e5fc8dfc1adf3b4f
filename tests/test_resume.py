"""Each training stage, interrupted after a checkpoint and restarted: its outs equal those of an uninterrupted run."""

import importlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.params import load
from rlhf_sentiment.ppo.step import collect
from rlhf_sentiment.training.checkpoints import Checkpoints

from .conftest import World, assert_names

LORA = {"rank": 2, "alpha": 4, "dropout": 0.0, "target": "all"}


class Killed(BaseException):
    """An exception that no code of this project may catch."""


def run(stage: str) -> None:
    module = importlib.import_module(stage)
    module.main(load(module.Params, Path("params.yaml")))


def interrupt(monkeypatch: pytest.MonkeyPatch, stage: str, after: int) -> None:
    """Run a stage that is interrupted right after its checkpoint of step `after`."""
    write = Checkpoints.writing

    @contextmanager
    def once(self: Checkpoints, step: int) -> Iterator[Path]:
        with write(self, step) as folder:
            yield folder
        if step == after:
            raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "writing", once)
        with pytest.raises(Killed):
            run(stage)


def outs(stage: str) -> dict[str, bytes]:
    written = [Path(out) for out in importlib.import_module(stage).WRITES]
    files = [file for out in written for file in ([out] if out.is_file() else sorted(out.rglob("*"))) if file.is_file()]
    return {str(file): file.read_bytes() for file in files}


def with_dropout(world: World) -> None:
    """Give models/base dropout, so that training draws random numbers at every step."""
    config = world / "models/base/config.json"
    tree = json.loads(config.read_text()) | {"resid_pdrop": 0.1, "attn_pdrop": 0.1, "embd_pdrop": 0.1}
    config.unlink()  # a link to the cache
    config.write_text(json.dumps(tree))


@pytest.mark.parametrize(
    ("stage", "settings", "after"),
    [
        ("base", {"base.epochs": 2, "checkpoint_every.base": 3}, [3, 21]),  # in the first and the second pass over the texts
        ("sft", {"sft.epochs": 2, "sft.batch_size": 16}, [1, 5, 8]),  # the last step, too
        ("reward", {"reward.epochs": 2, "reward.batch_size": 16}, [2, 6]),
        ("sft", {"sft.batch_size": 16, "sft.lora": LORA | {"dropout": 0.2}}, [2]),
        ("reward", {"reward.batch_size": 16, "reward.lora": LORA | {"dropout": 0.2}}, [2]),
        ("ppo", {"ppo.steps": 3, "ppo.critic": "separate", "ppo.lora": LORA}, [2]),
        ("ppo", {"ppo.steps": 4, "ppo.kl_target": 0.01, "ppo.kl_horizon": 8, "ppo.validation_every": 2}, [1, 2, 4]),
        ("ppo", {"ppo.steps": 5, "ppo.kl_stop": 1e-9, "ppo.critic": "shared"}, [1, 2]),  # stops at the second
    ],
)
def test_an_interrupted_run_ends_with_the_same_bytes(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stage: str,
    settings: dict[str, Any],
    after: list[int],
) -> None:
    monkeypatch.chdir(world.folder)
    if stage == "sft":
        with_dropout(world)
    for key, value in settings.items():
        world.set(key, value)
    run(stage)
    whole = outs(stage)
    for step in after:
        yaml.safe_dump({"stages": {}}, (world / "dvc.lock").open("w"))  # it records nothing
        (world / ".checkpoints").rename(world / f"before-{step}")
        interrupt(monkeypatch, stage, step)
        capsys.readouterr()
        run(stage)
        assert_names(capsys.readouterr().out, f"{stage}: ", "checkpoint", f"step {step}\n")
        again = outs(stage)
        assert [name for name in whole if whole[name] != again[name]] == []


def test_a_checkpoint_of_other_settings_is_not_used(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world.folder)
    interrupt(monkeypatch, "ppo", 1)
    world.set("ppo.kl_coef", 0.2)
    run("ppo")
    assert "checkpoint" not in capsys.readouterr().out
    world.set("ppo.kl_coef", 0.3)
    run("ppo")
    assert_names(capsys.readouterr().out, "ppo: ", "checkpoint", "step 1\n")


def test_a_figure_that_is_not_finite_stops_ppo_and_keeps_the_last_checkpoint(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(world.folder)
    whole = outs("ppo")
    calls = 0

    def poisoned(actors: Any, *rest: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:  # step 2
            torch.nn.init.constant_(actors.reward.model.score.weight, float("nan"))
        return collect(actors, *rest)

    with monkeypatch.context() as patched:
        patched.setattr("rlhf_sentiment.ppo.loop.collect", poisoned)
        with pytest.raises(StageError) as error:
            run("ppo")
        assert_names(error.value, "step 2: ", "score", "not finite")
    run("ppo")
    assert_names(capsys.readouterr().out, "ppo: ", "checkpoint", "step 1\n")
    assert outs("ppo") == whole
