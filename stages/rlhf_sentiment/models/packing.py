"""Compute the real tokens of a padded batch only.

The tokens of all rows become one long row without padding. Products, norms and activations act on each token by itself, so they
do not notice. Attention gets its rows back, and pads them on the right, where causal attention does not look. transformers
takes a new kind of attention by name (`AttentionInterface`), and hands it the argument `rows`.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

BY_ROWS = "attention_by_rows"


class Rows(NamedTuple):
    """Where each of N tokens stands in a batch of B rows that are padded on the right to L columns.

    Attributes:
        slots: row * L + column of each token. None if no row has padding. (N,)
        shape: B, L.
    """

    slots: Tensor | None
    shape: tuple[int, int]

    def spread(self, x: Tensor) -> Tensor:
        """Return the rows of a packed tensor, with zeros on padding: (1, H, N, D) -> (B, H, L, D)."""
        tokens = x[0].transpose(0, 1)  # (N, H, D)
        if self.slots is not None:
            tokens = _Spread.apply(tokens, self.slots, self.shape[0] * self.shape[1])
        return tokens.unflatten(0, self.shape).transpose(1, 2)

    def gather(self, x: Tensor) -> Tensor:
        """Return the packed tensor of rows: (B, L, H, D) -> (1, N, H, D)."""
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
    """The real tokens of a batch, in one row.

    Attributes:
        ids: token ids. (1, N)
        places: position ids, from 0 in each row. (1, N)
        rows: where the tokens stand.
        real: True on real tokens of the padded batch. (B, L)
    """

    ids: Tensor
    places: Tensor
    rows: Rows
    real: Tensor

    @classmethod
    def of(cls, sequences: Tensor, attention_mask: Tensor) -> "Packed":
        """Return the real tokens of a batch, which is padded on either side or both: (B, L), (B, L) -> N tokens."""
        real = attention_mask.bool()
        lengths = attention_mask.sum(dim=1)
        longest = int(lengths.max())
        filled = torch.arange(longest, device=lengths.device) < lengths[:, None]  # (B, longest)
        slots = None if filled.all() else filled.flatten().nonzero().squeeze(1)
        rows = Rows(slots, (len(lengths), longest))
        return cls(sequences[real][None], positions(attention_mask)[real][None], rows, real)

    def at(self, kept: Tensor) -> Tensor:
        """Return the places in the one row of the positions that a mask of the padded batch keeps: (B, L) -> (M,)."""
        return kept[self.real].nonzero().squeeze(1)

    def inputs(self) -> dict[str, Any]:
        """Return the arguments of a model."""
        return {"input_ids": self.ids, "position_ids": self.places, "rows": self.rows, "use_cache": False}


def positions(attention_mask: Tensor) -> Tensor:
    """Return position ids that start at 0 on each row's first real token: (B, L) -> (B, L)."""
    return (attention_mask.cumsum(dim=1) - 1).clamp(min=0)


def _attend(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, rows: Rows | None = None, **options: Any
) -> tuple[Tensor, None]:
    """Compute attention within each row of a packed batch; or that of transformers, where the batch is not packed."""
    if rows is None:
        return sdpa_attention_forward(module, query, key, value, mask, **options)
    spread = (rows.spread(x) for x in (query, key, value))
    return rows.gather(sdpa_attention_forward(module, *spread, None, **options)[0]), None


def _mask(attention_mask: Tensor | None = None, **options: Any) -> Tensor | None:
    """Return the mask of transformers for a padded batch. A batch without padding needs none, packed or not."""
    return None if attention_mask is None else sdpa_mask(attention_mask=attention_mask, **options)


AttentionInterface.register(BY_ROWS, _attend)
AttentionMaskInterface.register(BY_ROWS, _mask)


def packs(model: Any) -> bool:
    """Return whether a model computes packed batches."""
    return model.config._attn_implementation == BY_ROWS


@torch.no_grad()
def pack(model: PreTrainedModel) -> None:
    """Let a model compute packed batches, where it can.

    A model cannot where its layers look back over a window, or where its attention is not transformers' own. A batch of three
    rows is computed in both ways, because some models do not hand `rows` on.
    """
    config = model.config.get_text_config()
    windows = getattr(config, "sliding_window", None) or getattr(config, "attention_chunk_size", None)
    others = set(getattr(config, "layer_types", None) or []) - {"full_attention"}
    if windows or others or not model._supports_attention_backend or model.config._attn_implementation != "sdpa":
        return
    trunk, device, training = model.base_model.eval(), model.device, model.training
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]], device=device)
    packed = Packed.of(torch.arange(12, device=device).view(3, 4) % config.vocab_size, mask)
    try:
        alone = [
            trunk(input_ids=packed.ids[:, start:end], use_cache=False).last_hidden_state[0]
            for start, end in ((0, 3), (3, 7), (7, 8))
        ]
        model.set_attn_implementation(BY_ROWS)
        together = trunk(**packed.inputs()).last_hidden_state[0]
        same = torch.allclose(together, torch.cat(alone), rtol=1e-3, atol=1e-4 * float(together.std()) + 1e-6)
    except (TypeError, ValueError, RuntimeError):
        same = False
    trunk.train(training)
    if not same:
        model.set_attn_implementation("sdpa")
