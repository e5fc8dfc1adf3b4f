"""Models of users: which are loaded, which are refused and why, and the value head of models without one."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedModel

from base import check_saved, give_pad_token, train_tokenizer
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.evaluation.contestants import CONTESTANTS
from rlhf_sentiment.models.compatibility import check_policy
from rlhf_sentiment.models.forward import logits, reward_scores, states, width
from rlhf_sentiment.models.loading import load_classifier, load_policy, load_reward_model, load_tokenizer, save
from rlhf_sentiment.models.value_head import Critic
from rlhf_sentiment.models.weights import _at_most

from .conftest import World, assert_names, checkout, run_pipeline, tiny_params, write_classifier

IDS = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}
SIZE = IDS | {
    "vocab_size": 60,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
GPT2 = IDS | {"vocab_size": 60, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
OPT350 = {"word_embed_proj_dim": 8, "do_layer_norm_before": False}  # what it has otherwise than "opt" in SHAPES
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2": GPT2,
    "opt": SIZE | {"ffn_dim": 32, "word_embed_proj_dim": 16},
    "bloom": IDS | {"vocab_size": 60, "hidden_size": 16, "n_layer": 2, "n_head": 2},
    "codegen": {"vocab_size": 60, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 4},
    "gemma": SIZE | {"head_dim": 8},
    "openai-gpt": GPT2,
    "ctrl": GPT2 | {"dff": 32},
}


def make(kind: str, **changes: Any) -> PreTrainedModel:
    """Return a random causal model of an architecture, with weights larger than its initial weights."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**SHAPES.get(kind, SIZE) | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    return model.eval()


def write(folder: Path, kind: str = "llama", **changes: Any) -> Path:
    """Save a random causal model, and return its folder."""
    make(kind, **changes).save_pretrained(folder)
    return folder


def reconfigure(folder: Path, **changes: Any) -> None:
    """Change values in a model's config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> None:
    """Change a model's weights by name."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def bring_and_save(folder: Path, result: Path) -> dict[str, Any]:
    """Save a model as `base` does, and return the saved configuration."""
    train_tokenizer(["a warm film"] * 5, 270).save_pretrained(folder)
    model, tokenizer = load_policy(folder), load_tokenizer(folder)
    give_pad_token(model, tokenizer)
    save(model, tokenizer, result)
    return json.loads((result / "config.json").read_text())


def shard(folder: Path, name: str) -> None:
    """Write an index for a model that maps all its weights to the file `name`."""
    weights = load_file(folder / "model.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(weights, name)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    if name.endswith(".safetensors") and Path(name).name == name:
        save_file(weights, folder / name, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "kind", ["gpt2", "llama", "opt", "bloom", "gpt_neox", "qwen2", "gemma", "granite", "cohere", "codegen", "granitemoe"]
)
def test_an_architecture_that_works_is_loaded_and_gets_a_value_head(tmp_path: Path, kind: str) -> None:
    policy = load_policy(write(tmp_path / "policy", kind))
    policy.config.pad_token_id = 1  # codegen has no pad token before `base`
    policy.save_pretrained(tmp_path / "models")
    reward = load_reward_model(tmp_path / "models", new_head=True)
    for name, weight in policy.base_model.state_dict().items():
        assert torch.equal(weight, reward.base_model.state_dict()[name]), name
    torch.nn.init.normal_(reward.score.weight)
    reward.save_pretrained(tmp_path / "reward")
    again = load_reward_model(tmp_path / "reward")
    ids, mask = torch.tensor([[5, 6, 7, 8]]), torch.ones(1, 4, dtype=torch.long)
    scores = reward_scores(reward, ids, mask)
    assert torch.equal(reward_scores(again, ids, mask), scores)
    torch.testing.assert_close(reward(ids, attention_mask=mask).logits[0], scores), "the reward trainer trains these scores"
    values = Critic.from_reward_model(reward)(ids, mask, 1)
    assert values.shape == (1, 1)


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("mamba", ["cache", "logits", "differ"]),
        ("openai-gpt", ["cannot be called", "cache"]),
        ("bert-generation", ["cache", "logits", "differ"]),
        ("ctrl", ["CTRLForSequenceClassification", "no linear head"]),
    ],
)
def test_an_architecture_that_would_be_sampled_wrongly_is_refused(tmp_path: Path, kind: str, parts: list[str]) -> None:
    with pytest.raises(StageError) as error:
        load_policy(write(tmp_path / kind, kind))
    assert_names(error.value, f"{tmp_path / kind}, ", f"kind {kind}", *parts)


@pytest.mark.parametrize("argument", ["attention_mask", "position_ids"])
def test_a_model_whose_results_change_with_padding_is_refused(argument: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPT-2 that ignores the attention mask or the position ids is refused."""
    model = make("gpt2")
    true = model.forward
    monkeypatch.setattr(model, "forward", lambda **given: true(**given | {argument: None}))
    with pytest.raises(StageError) as error:
        check_policy("mine", model)
    assert_names(error.value, "mine", "kind gpt2", "padded on the left", "logits")


def test_a_model_with_few_positions_passes_the_check() -> None:
    check_policy("mine", make("gpt2", n_positions=8))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("tied", [True, False])
def test_half_precision_and_tied_or_separate_heads_are_loaded(tmp_path: Path, dtype: torch.dtype, tied: bool) -> None:
    model = make("llama", tie_word_embeddings=tied).to(dtype)
    model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    loaded = load_policy(tmp_path)
    assert loaded.dtype == torch.float32
    assert torch.equal(loaded.lm_head.weight, model.lm_head.weight.float())
    assert (loaded.lm_head.weight is loaded.model.embed_tokens.weight) == tied


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_removed_from_weight_names(tmp_path: Path, prefix: str) -> None:
    write(tmp_path)
    plain = load_file(tmp_path / "model.safetensors")
    rewrite(tmp_path, lambda weights: {prefix + name: weight for name, weight in weights.items()})
    load_policy(tmp_path).save_pretrained(tmp_path / "again")
    again = load_file(tmp_path / "again/model.safetensors")
    assert again.keys() == plain.keys()
    assert all(torch.equal(again[name], weight) for name, weight in plain.items())


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            lambda w: {"tok_embeddings.weight": torch.zeros(2, 2)},
            ["config.json", "num_hidden_layers", "1 tensors", "tok_embeddings.weight", "Llama", "convert"],
        ),
        (
            lambda w: {f"unet.{name}": weight for name, weight in w.items()},
            ["lacks weights", "lm_head.weight", "has others", "unet."],
        ),
        (
            lambda w: w | {"v_head.summary.weight": torch.zeros(1, 16)},
            ["config.json", "does not describe", "v_head.summary.weight", "trl", "pretrained_model"],
        ),
        (
            lambda w: w | {"_orig_mod.model.norm.weight": torch.zeros(16)},
            ["twice", "as _orig_mod.model.norm.weight", "as model.norm.weight"],
        ),
        (lambda w: w | {"model.norm.weight": torch.ones(16).int()}, ["model.norm.weight", "I32", "float32"]),
        (lambda w: w | {"model.norm.weight": torch.ones(16) * 1j}, ["model.norm.weight", "C64", "float32"]),
        (
            lambda w: {n: t for n, t in w.items() if "norm" not in n},
            ["lacks weights", "model.layers.0.input_layernorm.weight"],
        ),
        (
            lambda w: w | {"model.norm.weight": torch.ones(17)},
            ["model.norm.weight", "shape [17]", "config.json", "[16]"],
        ),
        (
            lambda w: w | {"model.norm.weight": torch.full((16,), float("nan"))},
            ["model.norm.weight", "NaN"],
        ),
        (
            lambda w: w | {"lm_head.weight": torch.full((60, 16), -float("inf"))},
            ["lm_head.weight", "infinite"],
        ),
    ],
)
def test_weights_that_do_not_fit_the_configuration_are_named(tmp_path: Path, change: Any, parts: list[str]) -> None:
    rewrite(write(tmp_path), change)
    with pytest.raises(StageError) as error:
        load_policy(tmp_path)
    assert_names(error.value, str(tmp_path), *parts)
    assert "delete" not in str(error.value), "the model belongs to the user"


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"num_hidden_layers": 1}, ["config.json", "does not describe", "model.layers.1."]),
        ({"num_hidden_layers": 3}, ["lacks weights", "model.layers.2."]),
        ({"num_hidden_layers": 10**6}, ["config.json", "num_hidden_layers", "1000000,", "21 tensors"]),
        ({"num_hidden_layers": 10**12}, ["config.json", "num_hidden_layers", "1000000000000", "21 tensors"]),
        ({"num_hidden_layers": -1}, ["config.json", "does not describe"]),
        ({"num_labels": 10**12}, ["config.json", "1000000000000 labels", "at most 10,000"]),
        ({"id2label": {str(i): "a" for i in range(10_001)}}, ["config.json", "10001 labels", "at most 10,000"]),
        ({"pad_token_id": "x"}, ["cannot be loaded", "'pad_token_id'", "TypeError"]),
        ({"vocab_size": 61}, ["config.json", "shape [60, 16]", "[61, 16]"]),
        ({"vocab_size": 10**12}, ["config.json", "asks for 32,", "numbers"]),
        ({"vocab_size": 10**18}, ["cannot be loaded"]),
        ({"hidden_size": 10**400}, ["cannot be loaded"]),
        ({"hidden_size": -16}, ["cannot be loaded"]),
        ({"hidden_size": "wide"}, ["cannot be loaded", "hidden_size"]),
        ({"intermediate_size": 10**9}, ["config.json", "asks for", "numbers"]),
        ({"model_type": "no such thing"}, ["cannot be loaded", "no such thing"]),
        ({"model_type": "mixtral", "num_local_experts": 10**9}, ["config.json", "asks for", "numbers"]),
        ({"auto_map": {"AutoConfig": "evil.C"}, "model_type": "evil"}, ["cannot be loaded"]),
    ],
)
def test_a_configuration_that_does_not_fit_the_weights_is_refused(
    tmp_path: Path, changes: dict[str, Any], parts: list[str]
) -> None:
    reconfigure(write(tmp_path, tie_word_embeddings=False), **changes)
    with pytest.raises(StageError) as error:
        load_policy(tmp_path)
    assert_names(error.value, str(tmp_path), *parts)


def test_a_configuration_with_far_too_many_layers_is_refused(tmp_path: Path) -> None:
    """The configuration of Qwen makes such a list when transformers reads it."""
    reconfigure(write(tmp_path, "qwen2"), num_hidden_layers=10**12, layer_types=None)
    for load in (load_policy, load_reward_model):
        with pytest.raises(StageError) as error:
            load(tmp_path)
        assert_names(error.value, "config.json", "num_hidden_layers", "1000000000000", "tensors")


def test_a_configuration_with_far_too_many_positions_is_refused(tmp_path: Path) -> None:
    """GPT-J computes a table of positions that no file contains."""
    write(tmp_path, "gptj", rotary_dim=4, vocab_size=60, n_embd=16, n_layer=1, n_head=2, n_positions=64)
    assert load_policy(tmp_path)
    reconfigure(tmp_path, n_positions=10**12)
    with pytest.raises(StageError) as error:
        load_policy(tmp_path)
    assert_names(error.value, "config.json", "8,000,000,008,380 numbers", " 8,380")


def test_building_a_model_stops_at_the_limit_of_tensors() -> None:
    """Other keys than the number of layers can multiply a model. So tensors are counted while the model is made."""
    with _at_most(10, "mine"):
        torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(5))
    with pytest.raises(StageError) as error, _at_most(10, "mine"):
        torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(6))
    assert_names(error.value, "mine", "more than 10 tensors")
    torch.nn.ModuleList(torch.nn.Linear(1, 1) for _ in range(6))


@pytest.mark.parametrize(
    "changes",
    [
        {"eos_token_id": [0, 5]},
        {"output_attentions": True, "output_hidden_states": True},
        {"return_dict": False},
    ],
)
def test_unusual_harmless_settings_of_a_model_are_reset(tmp_path: Path, changes: dict[str, Any]) -> None:
    """The model behaves as one without these changes, from the first check to its reward model."""
    plain = bring_and_save(write(tmp_path / "model", "gpt2", vocab_size=270), tmp_path / "plain")
    reconfigure(tmp_path / "model", **changes)
    assert bring_and_save(tmp_path / "model", tmp_path / "odd") == plain


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_deeply_nested_json_is_refused_and_the_file_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path)
    tokenizer = train_tokenizer(["a warm film"] * 5, 270)
    tokenizer.save_pretrained(tmp_path)
    (tmp_path / name).write_text('{"a": ' * 100_000 + "1" + "}" * 100_000)
    with pytest.raises(StageError) as error:
        load_tokenizer(tmp_path) if name.startswith("tokenizer") else load_policy(tmp_path)
    assert_names(error.value, str(tmp_path / name), "cannot be read")


class Planted:
    """A pickle that creates `mark` when it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.mkdir, (self.mark,)


@pytest.mark.parametrize("name", ["pytorch_model-00001-of-00001.bin", "../elsewhere.safetensors", "weights.pt"])
@pytest.mark.parametrize("load", [load_policy, lambda folder: load_classifier(str(folder), "cpu"), load_reward_model])
def test_an_index_that_names_no_safetensors_file_beside_it_is_refused(
    tmp_path: Path, name: str, load: Callable[[Path], Any]
) -> None:
    write(tmp_path / "model")
    shard(tmp_path / "model", name)
    (tmp_path / "model" / name).write_bytes(pickle.dumps(Planted(tmp_path / "pwned")))
    with pytest.raises(StageError) as error:
        load(tmp_path / "model")
    assert_names(error.value, "model.safetensors.index.json", repr(name), "not a safetensors file")
    assert not (tmp_path / "pwned").exists()


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    shard(write(tmp_path), "one.safetensors")
    assert load_policy(tmp_path)
    (tmp_path / "one.safetensors").unlink()
    with pytest.raises(StageError) as error:
        load_policy(tmp_path)
    assert_names(error.value, str(tmp_path), "no one.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(StageError) as error:
        load_policy(tmp_path)
    assert_names(error.value, str(tmp_path / "model.safetensors.index.json"), "weight_map")


def test_a_folder_without_config_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("a model will come here")
    with pytest.raises(StageError) as error:
        load_policy(tmp_path)
    assert_names(error.value, str(tmp_path), "no config.json")


def test_other_weights_named_by_the_configuration_are_not_opened(tmp_path: Path) -> None:
    reconfigure(write(tmp_path / "model"), transformers_weights="adapter_model.bin")
    (tmp_path / "model/adapter_model.bin").write_bytes(pickle.dumps(Planted(tmp_path / "pwned")))
    with pytest.raises(StageError) as error:
        load_policy(tmp_path / "model")
    assert_names(error.value, str(tmp_path / "model/config.json"), "transformers_weights")
    assert not (tmp_path / "pwned").exists()


def test_an_adapter_is_refused(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "gpt2", "peft_type": "LORA"}')
    save_file({"base_model.model.lora_A.weight": torch.zeros(2, 2)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(StageError) as error:
        load_policy(tmp_path)
    assert_names(error.value, str(tmp_path), "adapter", "merge_and_unload")
    write(tmp_path)
    (tmp_path / "adapter_config.json").unlink()
    with pytest.raises(StageError) as error:
        load_policy(tmp_path)
    assert_names(error.value, str(tmp_path), "adapter", "merge_and_unload")


@pytest.mark.parametrize("pad", [60, 5000, -1])
def test_a_pad_id_outside_the_vocabulary_is_replaced(tmp_path: Path, pad: int) -> None:
    reconfigure(write(tmp_path / "model", vocab_size=270), pad_token_id=pad if pad != 60 else 270)
    tokenizer = train_tokenizer(["a warm film"] * 5, 270)
    model = load_policy(tmp_path / "model")
    give_pad_token(model, tokenizer)
    save(model, tokenizer, tmp_path / "again")
    assert load_policy(tmp_path / "again").config.pad_token_id == tokenizer.pad_token_id


def test_a_pad_token_beyond_the_embedding_gets_a_row(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["a warm film"] * 5, 270)
    model = make("gpt2", vocab_size=len(tokenizer))
    tokenizer.add_special_tokens({"pad_token": "<one more>"})
    give_pad_token(model, tokenizer)
    assert model.get_input_embeddings().num_embeddings == len(tokenizer) == tokenizer.pad_token_id + 1


@pytest.mark.parametrize(
    "own",
    [
        {"temperature": 0.9, "top_p": 0.6, "do_sample": False, "eos_token_id": [0, 5]},
        {"cache_implementation": "zzz"},
        [1],
        None,
    ],
)
def test_generation_config_json_is_not_read(tmp_path: Path, own: Any) -> None:
    """Some models have a generation_config.json that transformers reads but refuses to write."""
    tokenizer = train_tokenizer(["a warm film"] * 5, 270)
    write(tmp_path / "model", vocab_size=len(tokenizer))
    tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "model/generation_config.json").write_text(json.dumps(own))
    model, its_own = load_policy(tmp_path / "model"), load_tokenizer(tmp_path / "model")
    give_pad_token(model, its_own)
    save(model, its_own, tmp_path / "again")
    written = json.loads((tmp_path / "again/generation_config.json").read_text())
    assert written["eos_token_id"] == tokenizer.eos_token_id
    assert "temperature" not in written


def test_a_separate_head_stays_separate_if_the_configuration_ties_it(tmp_path: Path) -> None:
    write(tmp_path / "model", "gpt2", vocab_size=270)
    head = torch.randn(270, 16)
    rewrite(tmp_path / "model", lambda weights: weights | {"lm_head.weight": head})
    model = load_policy(tmp_path / "model")
    tokenizer = train_tokenizer(["a warm film"] * 5, 270)
    tokenizer.add_special_tokens({"pad_token": "<one more>"})
    give_pad_token(model, tokenizer)
    model.resize_token_embeddings(280)
    save(model, tokenizer, tmp_path / "again")
    check_saved("mine", model, tmp_path / "again")
    assert torch.equal(load_policy(tmp_path / "again").get_output_embeddings().weight[:270], head)


def test_a_model_that_cannot_be_saved_and_loaded_unchanged_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The position table of XGLM has a row for its default pad id. A larger pad id is outside the table."""
    shape = {"vocab_size": 310, "d_model": 16, "attention_heads": 2, "num_layers": 2, "ffn_dim": 32}
    model = load_policy(write(tmp_path / "model", "xglm", **shape))
    model.config.pad_token_id = 300
    monkeypatch.chdir(tmp_path)
    save(model, train_tokenizer(["a warm film"] * 5, 270), "models/base")
    with pytest.raises(StageError) as error:
        check_saved("mine", model, "models/base")
    assert_names(error.value, "mine", "cannot be loaded again", "out of bounds")
    assert not Path("models/base").exists(), "otherwise the next stage would load it"
    other = make("llama")
    other.save_pretrained(tmp_path / "other")
    with torch.no_grad():
        other.lm_head.weight.add_(1.0)
    with pytest.raises(StageError) as error:
        check_saved("mine", other, tmp_path / "other")
    assert_names(error.value, "mine", "weights change")


def test_hidden_states_of_a_narrow_trunk_give_the_models_logits() -> None:
    """The output of the trunk of OPT-350m is half as wide as its layers."""
    model = make("opt", **OPT350)
    assert width(model) == 8 != model.config.hidden_size
    row, mask = torch.tensor([[5, 6, 7, 8, 9]]), torch.ones(1, 5, dtype=torch.long)
    with torch.no_grad():
        kept = torch.tensor([[False, True, True, True, False]])
        found, hidden = logits(model, row, mask, kept), states(model.base_model, row, mask, kept)
        torch.testing.assert_close(model.lm_head(hidden), found)
        torch.testing.assert_close(model(row).logits[0, 1:4], found)
    assert Critic(width(model)).value(hidden).shape == (3,)


def test_a_classifier_with_nan_weights_is_refused(tmp_path: Path) -> None:
    write_classifier(tmp_path, ["NEGATIVE", "POSITIVE"])
    rewrite(tmp_path, lambda weights: weights | {"score.weight": weights["score.weight"] * float("nan")})
    with pytest.raises(StageError) as error:
        load_classifier(str(tmp_path), "cpu")
    assert_names(error.value, str(tmp_path), "score.weight", "NaN")


# Architectures that run through every stage, with what is unusual in each.
EVERY_STAGE: dict[str, dict[str, Any]] = {
    "gpt2": {"n_positions": 400},
    "llama": {"vocab_size": 128_256, "num_key_value_heads": 1},  # the vocabulary of Llama 3, and heads that share keys
    "qwen3": {"head_dim": 8, "tie_word_embeddings": True},
    "gemma3_text": {"head_dim": 8, "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
    "gpt_neox": {"vocab_size": 320},  # wider than the tokenizer, as Pythia's
    "opt": OPT350,  # positions start at 2, and the trunk narrows the states that a shared critic reads
    "mistral": {"head_dim": 8, "sliding_window": 8},
    "phi": {},  # the projection to the vocabulary has a bias
    "bloom": {},  # ALiBi
    "granite": {},  # no class for sequence classification
}
USUAL = ("gemma3_text", "gpt_neox", "qwen3")  # those that `make test` runs


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [kind if kind in USUAL else pytest.param(kind, marks=pytest.mark.thorough) for kind in EVERY_STAGE]
)
def test_an_architecture_runs_through_every_stage(tmp_path: Path, kind: str) -> None:
    tree = tiny_params()
    tree["base"].update(model="models/pretrained/mine", revision=None)
    tree["sft"]["max_length"] = tree["reward"]["max_length"] = 300
    tree["ppo"]["critic"] = "separate" if kind in ("granite", "gpt_neox") else "shared"
    world: World = checkout(tmp_path / "repository", tree)
    tokenizer = train_tokenizer(["a warm film was seen, and the plot felt dull"] * 5, 300)
    room = {} if kind in ("gpt2", "bloom") else {"max_position_embeddings": 400}
    model = make(kind, **{"vocab_size": len(tokenizer)} | room | EVERY_STAGE[kind])
    mine = world / "models/pretrained/mine"
    model.save_pretrained(mine, max_shard_size="20KB" if kind in ("gpt_neox", "qwen3") else "5GB")
    assert (mine / "model.safetensors.index.json").is_file() == (kind in ("gpt_neox", "qwen3"))
    tokenizer.save_pretrained(mine)
    run_pipeline(world)
    result = json.loads((world / "metrics/evaluation.json").read_text())
    assert CONTESTANTS.keys() <= result.keys()
    assert json.loads((world / "reports/ppo.json").read_text())["first_ratio_error"] < 1e-4
    assert type(load_reward_model(world / "models/reward")).__name__.endswith("ForSequenceClassification")
    weights = [load_policy(world / f"models/{name}").state_dict() for name in ("sft", "ppo")]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
