"""Packed batches: padding is not computed, and no result depends on it."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from rlhf_sentiment.models.cache import RoomyLayer, cache_of
from rlhf_sentiment.models.forward import before_responses, logits, states
from rlhf_sentiment.models.packing import Group, Packed, _attention, pack, packs
from rlhf_sentiment.sampling.rollout import _without, respond, uniforms

EOS, PAD = 0, 1
# Two rows with padding on both sides, and one with none.
IDS = torch.tensor([[1, 5, 6, 7, 1, 1], [2, 3, 4, 5, 6, 7], [1, 1, 1, 1, 9, 1]])
MASK = torch.tensor([[0, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 0]])


def test_the_real_tokens_of_a_batch_are_one_row_the_longest_first() -> None:
    packed = Packed.of(IDS, MASK)
    assert packed.ids.tolist() == [[2, 3, 4, 5, 6, 7, 5, 6, 7, 9]]
    assert packed.places.tolist() == [[0, 1, 2, 3, 4, 5, 0, 1, 2, 0]]
    (group,) = packed.groups
    assert (group.shape, group.tokens) == ((3, 6), 10)
    assert group.slots is not None
    assert group.slots.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 12]
    kept = torch.zeros_like(MASK, dtype=torch.bool)
    kept[0, 3] = kept[1, 0] = kept[2, 4] = True
    assert packed.at(kept).tolist() == [8, 0, 9]
    assert Packed.of(IDS[1:2], MASK[1:2]).groups == [Group(None, (1, 6), 6)], "a batch without padding needs no slots"


def test_groups_have_lengths_within_a_factor_of_two() -> None:
    lengths = [40, 8, 20, 21, 9, 10, 1, 32]
    mask = (torch.arange(40) < torch.tensor(lengths)[:, None]).long()
    groups = Packed.of(torch.ones_like(mask), mask).groups
    # 40, 32, 21 are above 20; 20 is above 10; 10, 9, 8 and 1 are short
    assert [(group.shape, group.tokens) for group in groups] == [((3, 40), 93), ((1, 20), 20), ((4, 10), 28)]


def test_rows_are_spread_and_gathered_with_their_gradients() -> None:
    rows = Group(torch.tensor([0, 1, 2, 4]), (2, 4), 4)
    x = torch.arange(8.0).view(1, 1, 4, 2).requires_grad_()  # (1, H, N, D)
    spread = rows.spread(x)
    assert spread[:, 0].tolist() == [[[0, 1], [2, 3], [4, 5], [0, 0]], [[6, 7], [0, 0], [0, 0], [0, 0]]]
    back = rows.gather(spread.transpose(1, 2))
    assert torch.equal(back, x.transpose(1, 2))
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])[None, :, None, None]
    (back * weight).sum().backward()
    assert x.grad is not None
    assert x.grad[0, 0].tolist() == [[1, 1], [2, 2], [3, 3], [4, 4]]
    doubles = x.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda one: rows.gather(rows.spread(one).transpose(1, 2).cumsum(dim=1)), doubles)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_packed_batch_has_the_logits_states_and_gradients_of_a_padded_one(tiny_model: Callable[..., Any], dtype: str) -> None:
    starts, ends = torch.tensor([[3], [0], [7], [11]]), torch.tensor([[15], [40], [40], [12]])
    columns = torch.arange(40)
    mask = ((columns >= starts) & (columns < ends)).long()
    ids = torch.randint(2, 40, mask.shape, generator=torch.Generator().manual_seed(1))
    kept = mask.bool() & (columns != 5)
    assert len(Packed.of(ids, mask).groups) == 3
    near = 1e-5 if dtype == "float32" else 0.05
    found = []
    for packed in (True, False):
        model = tiny_model("causal")
        if not packed:
            model.set_attn_implementation("sdpa")
        assert packs(model) == packed
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
            scores = logits(model, ids, mask, kept).float()
            hidden = states(model.base_model, ids, mask, kept).float()
        (scores.log_softmax(dim=-1)[:, 3].sum() + hidden.sum()).backward()
        found.append((scores, hidden, model.transformer.h[0].attn.c_attn.weight.grad))
    assert found[0][0].shape == (int(kept.sum()), 40)
    for one, other in zip(*found, strict=True):
        assert (one - other).norm() < near * other.norm()


@pytest.mark.parametrize("length", [5, 200])
@pytest.mark.parametrize("scaling", [None, 0.2])
def test_attention_in_bfloat16_has_the_values_and_gradients_of_float32(length: int, scaling: float | None) -> None:
    torch.manual_seed(0)
    module: Any = torch.nn.Module()
    query, key, value = torch.randn(3, 4, length, 8), torch.randn(3, 2, length, 8), torch.randn(3, 2, length, 8)
    module.num_key_value_groups = 2
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        q, k, v = parts = [x.detach().to(dtype).requires_grad_() for x in (query, key, value)]
        output, _ = _attention(module, q, k, v, None, scaling=scaling)
        (output.float() * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
        assert output.dtype == dtype
        found.append([output.detach(), *(part.grad for part in parts if part.grad is not None)])
    assert len(found[0]) == 4
    for one, other in zip(*found, strict=True):
        assert (other.float() - one).norm() < 0.02 * one.norm()


def llama(**changes: Any) -> LlamaConfig:
    size = {"vocab_size": 40, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaConfig(**size | {"num_key_value_heads": 2, "max_position_embeddings": 64} | changes)


def test_a_llama_with_grouped_queries_packs() -> None:
    torch.manual_seed(0)
    model = LlamaForCausalLM(llama()).eval()
    padded = logits(model, IDS, MASK, MASK.bool())
    pack(model)
    assert packs(model)
    packed = logits(model, IDS, MASK, MASK.bool())
    torch.testing.assert_close(packed, padded, rtol=1e-4, atol=1e-5)


def test_a_model_with_a_window_does_not_pack() -> None:
    config = MistralConfig(**llama().to_dict() | {"sliding_window": 4, "model_type": "mistral", "head_dim": 4})
    model = MistralForCausalLM(config).eval()
    pack(model)
    assert not packs(model)
    padded = logits(model, IDS, MASK, MASK.bool())
    alone = model(IDS[1:2]).logits[0]
    torch.testing.assert_close(padded[3:9], alone, rtol=1e-4, atol=1e-5)


def test_a_model_whose_attention_does_not_get_the_rows_does_not_pack(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("causal")
    model.set_attn_implementation("sdpa")
    for block in model.transformer.h:
        attention = block.attn.forward
        block.attn.forward = lambda *args, groups=None, attention=attention, **options: attention(*args, **options)
    pack(model)
    assert not packs(model)


def test_packing_leaves_the_mode_of_a_model_and_its_configuration(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("causal")
    before = model.config.to_json_string()
    model.set_attn_implementation("sdpa")
    model.train()
    pack(model)
    assert packs(model)
    assert model.training
    assert model.base_model.training
    assert model.config.to_json_string() == before, "a saved model does not name this project's attention"


def test_positions_before_responses() -> None:
    mask = torch.tensor([[0, 1, 1, 1, 0], [1, 1, 1, 1, 1]])
    assert before_responses(mask, 3).long().tolist() == [[0, 1, 1, 0, 0], [0, 1, 1, 1, 0]]


def test_rows_that_ended_leave_their_places_to_the_last_rows() -> None:
    assert _without(torch.tensor([False, True, False, True, False, False])).tolist() == [0, 4, 2, 5]
    assert _without(torch.tensor([True, True])).tolist() == []
    assert _without(torch.tensor([False, False, True])).tolist() == [0, 1]


def test_the_cache_is_allocated_once_and_moves_only_rows_that_change_places() -> None:
    layer = RoomyLayer(room=5)
    keys = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 1, 2, 4)
    layer.update(keys, keys + 10)
    memory = layer.memory[0].data_ptr()
    layer.batch_select_indices(torch.tensor([0, 2]))
    assert layer.get_seq_length() == 2
    found, values = layer.update(torch.full((2, 1, 1, 4), 7.0), torch.full((2, 1, 1, 4), 8.0))
    assert found[:, 0, :, 0].tolist() == [[0, 0, 7], [2, 2, 7]]
    assert values[:, 0, :, 0].tolist() == [[10, 10, 8], [12, 12, 8]]
    assert found.data_ptr() == memory == layer.memory[0].data_ptr()


def test_finished_rows_leave_the_batch(tiny_model: Callable[..., Any]) -> None:
    model = tiny_model("causal")
    assert all(type(layer) is RoomyLayer for layer in cache_of(model, 9).layers)
    with torch.no_grad():
        model.transformer.wte.weight[EOS] += 0.5 * model.transformer.wte.weight.std()
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, __, kwargs: seen.append(len(kwargs["input_ids"])), with_kwargs=True)
    prompts = [[5], [7, 8, 9, 10], [11, 12]] * 10
    noise = torch.stack([uniforms(20, 3, row) for row in range(30)])
    batch = respond(model, prompts, noise, EOS, PAD)
    lengths = batch.response_mask.sum(dim=1)
    assert seen == [int((lengths > t).sum()) for t in range(int(lengths.max()))]
    assert len(set(seen)) > 5
    for row in (0, 1, 2):  # the rows that moved have their own tokens
        alone = respond(model, [prompts[row]], noise[row : row + 1], EOS, PAD)
        assert alone.tokens()[0] == batch.tokens()[row]
