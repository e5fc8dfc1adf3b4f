"""Compute the real tokens of a padded batch only.

The tokens of all rows become one long row without padding. Products, norms and activations act on each token by itself, so they
do not notice. Attention gets its rows back, in groups of similar length, and pads them on the right, where causal attention
does not look. transformers takes a new kind of attention by name (`AttentionInterface`), and hands it the argument `groups`.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

BY_ROWS = "attention_by_rows"
_SHORT = 8  # rows of at most this length are one group
_FORMULA = 128  # longest rows for which the formula of attention is the fastest in bfloat16 on a CPU


class Group(NamedTuple):
    """Where the N tokens of some rows stand in a batch of B rows that are padded on the right to L columns.

    Attributes:
        slots: row * L + column of each token. None if no row has padding. (N,)
        shape: B, L.
        tokens: N.
    """

    slots: Tensor | None
    shape: tuple[int, int]
    tokens: int

    @classmethod
    def of(cls, lengths: Tensor) -> "Group":
        """Return the group of rows of these lengths, (B,)."""
        longest, tokens = int(lengths.max()), int(lengths.sum())
        filled = torch.arange(longest, device=lengths.device) < lengths[:, None]  # (B, L)
        slots = None if tokens == filled.numel() else filled.flatten().nonzero().squeeze(1)
        return cls(slots, (len(lengths), longest), tokens)

    def spread(self, x: Tensor) -> Tensor:
        """Return the rows of packed tokens, with zeros on padding: (1, H, N, D) -> (B, H, L, D)."""
        tokens = x[0].transpose(0, 1)  # (N, H, D)
        if self.slots is not None:
            tokens = _Spread.apply(tokens, self.slots, self.shape[0] * self.shape[1])
        return tokens.unflatten(0, self.shape).transpose(1, 2)

    def gather(self, x: Tensor) -> Tensor:
        """Return the packed tokens of rows: (B, L, H, D) -> (1, N, H, D)."""
        tokens = x.flatten(0, 1)
        return (tokens if self.slots is None else _Gather.apply(tokens, self.slots))[None]


class _Spread(torch.autograd.Function):
    """Copy tokens to their slots. The gradient takes them from there."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slots: Tensor, count: int) -> Tensor:
        ctx.save_for_backward(slots)
        return x.new_zeros(count, *x.shape[1:]).index_copy_(0, slots, x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return grads[0].index_select(0, ctx.saved_tensors[0]), None, None


class _Gather(torch.autograd.Function):
    """Take tokens from their slots. The gradient copies them there. torch's own gradient would add, one token at a time."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slots: Tensor) -> Tensor:
        ctx.save_for_backward(slots)
        ctx.count = len(x)
        return x.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        grad = grads[0]
        return grad.new_zeros(ctx.count, *grad.shape[1:]).index_copy_(0, ctx.saved_tensors[0], grad), None


class Packed(NamedTuple):
    """The N real tokens of a batch in one row, the tokens of the longest rows first.

    Attributes:
        ids: token ids. (1, N)
        places: position ids, from 0 in each row. (1, N)
        groups: the rows of similar length, as they follow each other.
        numbers: the number of each token in the one row. It has no meaning on padding. (B, L)
    """

    ids: Tensor
    places: Tensor
    groups: list[Group]
    numbers: Tensor

    @classmethod
    def of(cls, sequences: Tensor, attention_mask: Tensor) -> "Packed":
        """Return the real tokens of a batch, which is padded on either side or both: (B, L), (B, L) -> N tokens."""
        lengths, order = attention_mask.sum(dim=1).sort(descending=True, stable=True)
        real = attention_mask[order].bool()
        # The lengths of the first group are above half of the longest, those of the next above a quarter, and so on.
        doubled = lengths.clamp(min=_SHORT)[:, None] << torch.arange(1, 32, device=lengths.device)
        halvings = (doubled <= lengths[0]).sum(dim=1)  # (B,)
        groups = [Group.of(lengths[halvings == one]) for one in halvings.unique()]
        numbers = torch.empty_like(sequences)
        numbers[order] = (real.flatten().cumsum(dim=0) - 1).view_as(real)
        return cls(sequences[order][real][None], positions(real)[real][None], groups, numbers)

    def at(self, kept: Tensor) -> Tensor:
        """Return the numbers of the M tokens that a mask of the batch keeps, row by row: (B, L) -> (M,)."""
        return self.numbers[kept]

    def inputs(self) -> dict[str, Any]:
        """Return the arguments of a model."""
        return {"input_ids": self.ids, "position_ids": self.places, "groups": self.groups, "use_cache": False}


def positions(attention_mask: Tensor) -> Tensor:
    """Return position ids that start at 0 on each row's first real token: (B, L) -> (B, L)."""
    return (attention_mask.cumsum(dim=1) - 1).clamp(min=0)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    groups: list[Group] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Compute attention within each row of a packed batch; or that of transformers, where the batch is not packed."""
    if groups is None:
        return _attention(module, query, key, value, mask, **options)
    tokens = [group.tokens for group in groups]
    found = []
    for group, *parts in zip(groups, *(x.split(tokens, dim=2) for x in (query, key, value)), strict=True):
        q, k, v = (group.spread(part) for part in parts)
        found.append(group.gather(_attention(module, q, k, v, None, **options)[0]))
    return torch.cat(found, dim=1), None


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    """Compute attention of padded rows, as transformers does, but faster in bfloat16 on a CPU.

    There, the gradient of torch's fused attention takes several times as long as in float32. So short rows use the formula,
    softmax(q k^T / sqrt(d)) v, and long rows compute in float32.
    """
    length = query.shape[2]
    is_slow = query.dtype == torch.bfloat16 and query.device.type == "cpu"
    if not is_slow or mask is not None or length == 1 or options.get("dropout"):
        return sdpa_attention_forward(module, query, key, value, mask, **options)
    if length > _FORMULA:
        with torch.autocast("cpu", enabled=False):
            found, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), None, **options)
        return found.to(query.dtype), None
    key, value = (repeat_kv(x, query.shape[1] // x.shape[1]) for x in (key, value))
    scaling = options.get("scaling")
    future = torch.full((length, length), float("-inf"), dtype=query.dtype).triu(diagonal=1)
    weights = (query * (query.shape[3] ** -0.5 if scaling is None else scaling)) @ key.transpose(2, 3) + future
    return (weights.softmax(dim=-1) @ value).transpose(1, 2), None


def _mask(attention_mask: Tensor | None = None, **options: Any) -> Tensor | None:
    """Return the mask of transformers for a padded batch. A batch without padding needs none, packed or not."""
    return None if attention_mask is None else sdpa_mask(attention_mask=attention_mask, **options)


AttentionInterface.register(BY_ROWS, _attend)
AttentionMaskInterface.register(BY_ROWS, _mask)


def packs(model: Any) -> bool:
    """Return whether a model computes packed batches."""
    return model.config._attn_implementation == BY_ROWS


def may_pack(model: PreTrainedModel) -> bool:
    """Return False where a model's layers look back over a window, or where its attention is not transformers' own."""
    config = model.config.get_text_config()
    windows = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None)
    others = set(getattr(config, "layer_types", None) or []) - {"full_attention"}
    return not (windows or others) and model._supports_attention_backend and model.config._attn_implementation == "sdpa"


@torch.no_grad()
def pack(model: PreTrainedModel) -> None:
    """Let a model compute packed batches, where it can.

    A batch of three rows is computed in both ways, because some models do not hand `groups` on.
    """
    if not may_pack(model):
        return
    config = model.config.get_text_config()
    trunk, device, training = model.base_model.eval(), model.device, model.training
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]], device=device)
    packed = Packed.of(torch.arange(12, device=device).view(3, 4) % config.vocab_size, mask)
    try:
        alone = [
            trunk(input_ids=packed.ids[:, start:end], use_cache=False).last_hidden_state[0]
            for start, end in ((0, 4), (4, 7), (7, 8))
        ]
        model.set_attn_implementation(BY_ROWS)
        together = trunk(**packed.inputs()).last_hidden_state[0]
        same = torch.allclose(together, torch.cat(alone), rtol=1e-3, atol=1e-4 * float(together.std()) + 1e-6)
    except (TypeError, ValueError, RuntimeError):
        same = False
    trunk.train(training)
    if not same:
        model.set_attn_implementation("sdpa")
