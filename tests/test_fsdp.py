"""Fully sharded models (FSDP2): two ranks that divide all weights compute what one process computes, and save whole models."""

import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from rlhf_sentiment.engine.errors import ConfigError
from rlhf_sentiment.engine.launch import environments_of
from rlhf_sentiment.engine.ranks import FULL, LAYERS_STAY, SHARDS

from .conftest import ROOT, World, assert_names
from .test_ranks import CLOSE, LORA, add, assert_close, kept, ranks, run  # noqa: F401 (a fixture)

FSDP = "docs/scaling/fsdp2.yaml"
# Each rank says at each step how many weights of each model are divided.
RECORD = """
_learn = learn

def learn(actors, *arguments):
    from torch.distributed.tensor import DTensor
    found = _learn(actors, *arguments)
    models = [actors.policy, actors.reference, actors.reward.model.base_model, actors.critic]
    counts = [[isinstance(weight, DTensor) for weight in model.parameters()] for model in models]
    with open(f"divided-{rank()}", "a") as file:
        print(*(f"{sum(each)}/{len(each)}" for each in counts), file=file)
    return found
"""


# Rows end after other numbers of tokens, so that a rank ends its rollouts before the other one.
ENDS = """
_draw = draw

def draw(probabilities, noise, checked=True):
    return torch.where(noise > 0.7, 0, _draw(probabilities, noise, checked))  # 0 is EOS
"""


def configuration(**changes: Any) -> dict[str, Any]:
    tree: dict[str, Any] = yaml.safe_load((ROOT / FSDP).read_text())
    tree["fsdp_config"] = {key: value for key, value in (tree["fsdp_config"] | changes).items() if value is not None}
    return tree


@pytest.mark.parametrize(("reshard", "expected"), [(True, FULL), (False, LAYERS_STAY), (None, FULL)])
def test_a_file_that_asks_for_fsdp_tells_the_ranks(tmp_path: Path, reshard: bool | None, expected: str) -> None:
    file = tmp_path / "fsdp.yaml"
    file.write_text(yaml.safe_dump(configuration(fsdp_reshard_after_forward=reshard)))
    found = environments_of(str(file))
    assert [(one["RANK"], one["WORLD_SIZE"], one[SHARDS]) for one in found] == [("0", "2", expected), ("1", "2", expected)]
    assert not any("FSDP" in name for name in found[0]), "transformers' Trainer would shard again"
    assert SHARDS not in environments_of("docs/scaling/ddp.yaml")[0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fsdp_version": 1}, "fsdp_version: 1 is not supported"),
        ({"fsdp_version": None}, "fsdp_version should be 2"),
        ({"fsdp_offload_params": True}, "fsdp_offload_params: True is not supported"),
        ({"fsdp_auto_wrap_policy": "SIZE_BASED_WRAP"}, "fsdp_auto_wrap_policy: SIZE_BASED_WRAP is not supported"),
        ({"fsdp_min_num_params": 5}, "fsdp_min_num_params: 5 is not supported"),
    ],
)
def test_what_fsdp_does_not_do_here_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    file = tmp_path / "fsdp.yaml"
    file.write_text(yaml.safe_dump(configuration(**changes)))
    with pytest.raises(ConfigError, match=said):
        environments_of(str(file))


@pytest.mark.slow
@pytest.mark.parametrize("critic", ["separate", pytest.param("shared", marks=pytest.mark.thorough)])
def test_two_ranks_of_ppo_that_divide_the_weights_equal_one_process(ranks: World, tmp_path: Path, critic: str) -> None:  # noqa: F811
    for name, value in {
        "critic": critic,
        "batch_size": 8,
        "minibatches": 2,
        "micro_batch_size": 2,
        "learning_rate": 1e-3,
        "max_grad_norm": 0.1,  # the gradient is scaled
    }.items():
        ranks.set(f"ppo.{name}", value)
    add(ranks, "ppo/step.py", RECORD)
    add(ranks, "sampling/rollout.py", ENDS)
    files = ["plots/ppo.csv", "plots/ppo_validation.csv", "models/ppo/model.safetensors", "models/ppo/critic.safetensors"]
    run(ranks, "ppo.py", None)
    kept(ranks, tmp_path / "one", *files)
    (ranks / "divided-0").unlink()
    run(ranks, "ppo.py", FSDP)
    for file in files:
        assert_close(tmp_path / "one" / file, ranks / file)
    assert pd.read_csv(ranks / "plots/ppo.csv")["finished"].min() > 0.9, "most rows end early"
    for rank in (0, 1):
        for line in (ranks / f"divided-{rank}").read_text().splitlines():
            *trunks, own = (part.split("/") for part in line.split())
            assert all(one == other and int(one) > 10 for one, other in trunks)
            assert own[0] == (own[1] if critic == "separate" else "0"), "a shared critic is small, and stays whole"
    policy = AutoModelForCausalLM.from_pretrained(ranks / "models/ppo")
    assert type(policy).__name__ == "GPT2LMHeadModel"
    assert policy.lm_head.weight is policy.transformer.wte.weight


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", *(pytest.param(name, marks=pytest.mark.thorough) for name in ("base", "reward"))])
def test_a_trainer_that_divides_the_weights_has_the_losses_of_one_process(ranks: World, tmp_path: Path, stage: str) -> None:  # noqa: F811
    run(ranks, f"{stage}.py", None)
    table = f"plots/{stage}.csv"
    if stage != "base":
        kept(ranks, tmp_path, table)
    kept(ranks, tmp_path, f"models/{stage}/model.safetensors")
    run(ranks, f"{stage}.py", FSDP)
    assert (ranks / "ran-1").exists()
    if stage != "base":
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / table), pd.read_csv(ranks / table), atol=CLOSE, rtol=0)
    one, two = (load_file(folder / f"models/{stage}/model.safetensors") for folder in (tmp_path, ranks.folder))
    assert one.keys() == two.keys()
    for name, weight in one.items():  # Adam makes whole steps of a gradient that is only rounding
        assert float((two[name] - weight).abs().max()) < 1e-3


@pytest.mark.slow
def test_a_checkpoint_of_divided_weights_belongs_to_no_number_of_ranks(ranks: World, tmp_path: Path) -> None:  # noqa: F811
    """Two ranks stop after two of three steps. One process goes on, and ends as a run that was never stopped."""
    ranks.set("ppo.critic", "separate")
    ranks.set("ppo.learning_rate", 1e-3)
    files = ["plots/ppo.csv", "models/ppo/model.safetensors", "models/ppo/critic.safetensors"]
    run(ranks, "ppo.py", None)
    kept(ranks, tmp_path / "one", *files)
    for first, second in ((FSDP, None), (None, FSDP)):
        shutil.rmtree(ranks / ".checkpoints")
        ranks.set("launcher", first)
        ranks.run("python", "stages/ppo.py")
        for folder in ranks.folder.glob(".checkpoints/ppo/*/000000003"):
            shutil.rmtree(folder)
        for finished in ranks.folder.glob(".checkpoints/ppo/*/outs.json"):
            finished.unlink()
        ranks.set("launcher", second)
        assert "goes on from its checkpoint of step 2" in ranks.run("python", "stages/ppo.py")
        for file in files:
            assert_close(tmp_path / "one" / file, ranks / file)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "key", "value", "said"),
    [
        ("ppo.py", "ppo.lora", LORA, "ppo.lora is not supported"),
        ("sft.py", "sft.lora", LORA, "sft.lora is not supported"),
        ("ppo.py", "ppo.minibatches", 8, "a minibatch has 1 rows for 2 processes"),
        (
            "ppo.py",
            "ppo.validation_prompts",
            3,
            "ppo.validation_prompts should be a multiple of 2, the number of processes (got 3)",
        ),
    ],
)
def test_settings_that_divided_weights_do_not_allow(ranks: World, stage: str, key: str, value: Any, said: str) -> None:  # noqa: F811
    ranks.set(key, value)
    ranks.set("ppo.micro_batch_size", 8)
    assert_names(run(ranks, stage, FSDP, status=1), said)
