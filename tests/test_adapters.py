"""Low-rank adapters: the product that they add, one trunk for all models of PPO, and what is saved."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerBase

from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.models.adapters import POLICY, REWARD, Trunk, adapter_layers, add_adapter, merged, of_adapter
from rlhf_sentiment.models.forward import logits, reward_scores
from rlhf_sentiment.models.loading import load_reward_model, save
from rlhf_sentiment.ppo.actors import Actors, actors_of
from rlhf_sentiment.ppo.loop import LoopState, read_state, write_state
from rlhf_sentiment.ppo.step import collect
from rlhf_sentiment.settings.lora import Lora

from .conftest import RunStage, World, assert_names, run_pipeline
from .test_ppo_step import PROMPTS, learned, noise, optimizer_of, settings

LORA = {"rank": 2, "alpha": 6, "dropout": 0.0, "target": "all"}
IDS = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 13, 14]])
MASK = torch.ones_like(IDS)


def lora(**changes: Any) -> Lora:
    return Lora.model_validate(LORA | changes)


def filled(model: Any, name: str, seed: int = 0) -> Any:
    """Give all weights of an adapter random values. A new adapter's B is 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in of_adapter(model, name).values():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    return model


@torch.no_grad()
def policy_logits(model: Any) -> torch.Tensor:
    return logits(model, IDS, MASK, MASK.bool())


@pytest.fixture
def folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Callable[..., Any], letters: PreTrainedTokenizerBase
) -> Callable[..., None]:
    """Return a function that writes models/sft, and models/reward with or without an adapter, below the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(with_adapter: bool, name: str = "models/sft") -> None:
        policy = tiny_model("causal")
        save(policy, letters, name)
        reward = tiny_model("reward", seed=1)
        if with_adapter:
            reward.transformer.load_state_dict(policy.transformer.state_dict())
            add_adapter(reward, lora(rank=3), REWARD, name, "reward.lora")
            filled(reward, REWARD)
        save(reward, letters, "models/reward")

    return write


def of(letters: PreTrainedTokenizerBase, critic: str = "separate") -> Actors:
    return actors_of(settings(lora=lora(), critic=critic), letters, torch.device("cpu"))


def test_an_adapter_adds_a_product_of_low_rank(tiny_model: Callable[..., Any]) -> None:
    """The product is alpha / rank * B A, with alpha 6 and rank 2, worked by hand. GPT-2 stores its weights transposed."""
    model = tiny_model("causal")
    weight = model.transformer.h[0].mlp.c_proj.weight.detach().clone()  # (64, 16): input, output
    add_adapter(model, lora(target=["mlp.c_proj"]), POLICY, "models/sft", "ppo.lora")
    layer = model.transformer.h[0].mlp.c_proj
    with torch.no_grad():
        layer.lora_A[POLICY].weight.zero_()[1, 5] = 2.0  # the second of two numbers is twice the input 5
        layer.lora_B[POLICY].weight[3, 1] = 0.5  # and a half of it is added to the output 3
    weight[5, 3] += 6 / 2 * 0.5 * 2.0
    torch.testing.assert_close(merged(model, POLICY)["transformer.h.0.mlp.c_proj.weight"], weight)
    x = torch.zeros(1, 64)
    x[0, 5] = 1.0
    torch.testing.assert_close(layer(x)[0], weight[5] + layer.base_layer.bias)
    assert list(adapter_layers(model)) == ["transformer.h.0.mlp.c_proj", "transformer.h.1.mlp.c_proj"]


def test_a_new_adapter_changes_nothing_and_alone_learns(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("reward")
    before = reward_scores(model, IDS, MASK)
    add_adapter(model, lora(), REWARD, "models/sft", "reward.lora")
    after = reward_scores(model, IDS, MASK)
    assert torch.equal(after, before)
    after.sum().backward()
    with_gradient = {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert with_gradient == {"score.weight", *of_adapter(model, REWARD)}


def test_a_name_that_fits_no_product_is_refused(tiny_model: Callable[..., Any]) -> None:
    with pytest.raises(StageError, match=r"^sft\.lora\.target: .* called q_proj; there are c_attn, c_fc, c_proj$"):
        add_adapter(tiny_model("causal"), lora(target=["c_attn", "q_proj"]), POLICY, "models/base", "sft.lora")


@pytest.mark.parametrize("kind", ["causal", "reward"])
def test_plain_peft_and_plain_transformers_load_what_was_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Callable[..., Any], letters: PreTrainedTokenizerBase, kind: str
) -> None:
    from peft import PeftModel

    monkeypatch.chdir(tmp_path)
    model, name = tiny_model(kind), POLICY if kind == "causal" else REWARD
    auto: Any = AutoModelForCausalLM if kind == "causal" else AutoModelForSequenceClassification
    save(copy.deepcopy(model), letters, "models/sft")
    add_adapter(model, lora(), name, "models/sft", "ppo.lora")
    filled(model, name)
    if kind == "reward":
        model.score.weight.data.mul_(3)
    with torch.no_grad():
        expected = model(input_ids=IDS).logits
    save(model, letters, "models/new")
    config = json.loads(Path("models/new/adapter/adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"], config["lora_alpha"]) == ("models/sft", 2, 6)
    assert sorted(path.name for path in Path("models/new/adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    base = auto.from_pretrained(config["base_model_name_or_path"])
    alone = PeftModel.from_pretrained(base, "models/new/adapter").eval()
    whole = auto.from_pretrained("models/new").eval()
    with torch.no_grad():
        torch.testing.assert_close(alone(input_ids=IDS).logits, expected)
        torch.testing.assert_close(whole(input_ids=IDS).logits, expected)
        torch.testing.assert_close(model(input_ids=IDS).logits, expected)  # saving changes nothing
    assert not any("lora" in key or "base_layer" in key for key in load_file("models/new/model.safetensors"))


def test_each_view_of_a_trunk_computes_with_its_own_adapter(tiny_model: Callable[..., Any]) -> None:
    plain = tiny_model("causal")
    trunk = Trunk(copy.deepcopy(plain), "models/sft")
    trunk.add("one", lora(), "ppo.lora")
    trunk.add("other", lora(target=["c_attn"]), "ppo.lora")
    one, other, none = trunk.policy("one"), trunk.policy("other"), trunk.policy(None)
    assert all(torch.equal(policy_logits(view), policy_logits(plain)) for view in (one, other, none))
    filled(one, "one")
    changed = policy_logits(one)
    assert not torch.allclose(changed, policy_logits(plain), atol=0.1)
    assert torch.equal(policy_logits(other), policy_logits(plain))
    assert torch.equal(policy_logits(none), policy_logits(plain))
    assert torch.equal(policy_logits(one), changed)
    assert one.transformer.wte.weight is none.transformer.wte.weight, "the views share the weights"


@pytest.mark.parametrize("critic", ["separate", "shared"])
@pytest.mark.parametrize("with_adapter", [True, False])
def test_ppo_on_one_trunk(
    folders: Callable[..., None], letters: PreTrainedTokenizerBase, with_adapter: bool, critic: str
) -> None:
    """KL at step 0 is exactly 0, a step changes the adapters of policy and critic alone, and the ratio begins at 1."""
    folders(with_adapter)
    actors = of(letters, critic)
    experience = collect(actors, PROMPTS, noise(), settings(), 0.1)
    assert (experience.kl_k1 == 0).all()
    expected = reward_scores(load_reward_model("models/reward"), *experience.batch[:2]).detach()
    torch.testing.assert_close(experience.scores, expected)
    if critic == "separate":  # it begins as the reward model's adapter and head, or as a new adapter whose value is 0
        last = experience.values[range(8), experience.batch.response_mask.sum(dim=1) - 1]
        shorter = experience.batch.attention_mask.clone()
        shorter[range(8), -experience.batch.length + experience.batch.response_mask.sum(dim=1) - 1] = 0
        assert_values = reward_scores(load_reward_model("models/reward"), experience.batch.sequences, shorter).detach()
        torch.testing.assert_close(last, assert_values if with_adapter else torch.zeros(8))
    before = {name: weight.clone() for name, weight in actors.policy.state_dict().items()}
    head = {name: weight.clone() for name, weight in actors.critic.own().items()}
    figures = learned(actors, experience, settings(ppo_epochs=2))
    assert figures["first_ratio_error"] < 1e-5
    changed = {name for name, weight in actors.policy.state_dict().items() if not torch.equal(weight, before[name])}
    names = {name.split(".")[-2] for name in changed}
    assert names == ({"policy", "critic"} if critic == "separate" else {"policy"})
    assert any(not torch.equal(weight, head[name]) for name, weight in actors.critic.own().items() if "head" in name)
    assert not torch.allclose(policy_logits(actors.policy), policy_logits(actors.reference), atol=1e-4)
    torch.testing.assert_close(
        policy_logits(actors.reference), policy_logits(AutoModelForCausalLM.from_pretrained("models/sft"))
    )


def test_recomputed_layers_use_the_adapter_of_their_first_computation(
    folders: Callable[..., None], letters: PreTrainedTokenizerBase
) -> None:
    """Another adapter acts when the backward pass begins, as it would if the critic computed in between."""
    folders(with_adapter=True)
    found = []
    for recomputes in (False, True):
        actors = actors_of(settings(lora=lora(), gradient_checkpointing=recomputes), letters, torch.device("cpu"))
        filled(actors.policy, POLICY)
        experience = collect(actors, PROMPTS, noise(), settings(), 0.1)
        loss = actors.learners[0](experience.batch, 1.0).sum()
        if recomputes:
            actors.values(experience.batch, None)
        loss.backward()
        found.append([weight.grad for weight in of_adapter(actors.policy, POLICY).values()])
        assert learned(actors, experience, settings())["first_ratio_error"] == 0
    assert all(torch.equal(one, other) and one.abs().max() > 0 for one, other in zip(*found, strict=True))


def test_an_adapter_on_another_model_is_loaded_whole(
    folders: Callable[..., None], letters: PreTrainedTokenizerBase, tiny_model: Callable[..., Any]
) -> None:
    folders(with_adapter=True, name="models/other")
    save(tiny_model("causal"), letters, "models/sft")
    actors = of(letters)
    assert not any(f".{REWARD}." in name for name in actors.policy.state_dict())
    torch.testing.assert_close(
        reward_scores(actors.reward.model, IDS, MASK), reward_scores(load_reward_model("models/reward"), IDS, MASK)
    )


def test_a_checkpoint_holds_what_learns_and_restores_it(
    folders: Callable[..., None], letters: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    folders(with_adapter=True)
    one, other = of(letters), of(letters)
    learned(one, collect(one, PROMPTS, noise(), settings(), 0.1), settings())
    write_state(LoopState(one, optimizer_of(one), last=1, kl_coef=0.1).everything(), tmp_path)
    saved = read_state(tmp_path)
    assert not any("base_layer" in name or "wte" in name for name in (*saved["actors"]["policy"], *saved["actors"]["critic"]))
    LoopState(other, optimizer_of(other), last=1, kl_coef=0.1).restore(saved)
    for mine, his in zip(other.parameters(), one.parameters(), strict=True):
        assert torch.equal(mine, his)
    values = [collect(actors, PROMPTS, noise(), settings(), 0.1).values for actors in (one, other)]
    assert torch.equal(*values)


def test_dropout_is_refused_in_ppo() -> None:
    with pytest.raises(ValueError, match=r"ppo\.lora\.dropout must be 0"):
        settings(lora=lora(dropout=0.1))


@pytest.mark.slow
def test_adapters_go_through_every_stage(world: World, run_stage: RunStage) -> None:
    """The files of the scripts: each model is whole, its adapter stands beside it, and the critic's file has no trunk."""
    for section in ("sft", "reward", "ppo"):
        world.set(f"{section}.lora", LORA | {"dropout": 0.1 if section == "reward" else 0.0})
        world.set(f"{section}.learning_rate", 0.01)
    world.set("ppo.critic", "separate")
    run_pipeline(world)
    for name, base in (("sft", "models/base"), ("reward", "models/sft"), ("ppo", "models/sft")):
        config = json.loads((world / f"models/{name}/adapter/adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == base
        weights = load_file(world / f"models/{name}/adapter/adapter_model.safetensors")
        assert all(weight.abs().max() > 0 for key, weight in weights.items() if "lora_B" in key), "it has learned"
    assert all(".critic." in name or "trunk" not in name for name in load_file(world / "models/ppo/critic.safetensors"))
    validated = pd.read_csv(world / "plots/ppo_validation.csv")
    assert validated["kl"][0] == 0
    assert validated["kl"].iloc[-1] > 0
    adapter = world / "models/reward/adapter/adapter_model.safetensors"
    with_dropout = adapter.read_bytes()
    world.set("reward.lora", LORA)
    run_stage(world, "reward")
    assert adapter.read_bytes() != with_dropout, "dropout changes what is learned"
    *_, newest = sorted(world.folder.glob(".checkpoints/reward/*/0*/checkpoint-*/model.safetensors"))
    assert {name for name in load_file(newest) if ".lora_" not in name} == {"score.weight"}, "a checkpoint has what learns"
    world.set("ppo.lora", LORA | {"target": ["nothing"]})
    done = run_stage(world, "ppo", status=1)
    assert_names(done.err, "ppo.lora.target", "nothing", "c_attn")
