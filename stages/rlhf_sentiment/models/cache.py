"""A key-value cache whose memory is allocated once, and which rows can leave."""

from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer, as views of memory with room for a whole response.

    transformers' own layer copies everything to new memory at each token.
    """

    def __init__(self, room: int) -> None:
        """Make an empty layer for `room` tokens in each row."""
        super().__init__()
        self.room, self.length = room, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the memory for states of these shapes: (B, H, T, D)."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.memory = [x.new_empty(*x.shape[:2], self.room, x.shape[3]) for x in (key_states, value_states)]
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Add the states of new tokens, and return those of all tokens: (B, H, T, D) -> (B, H, L + T, D)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[2]
        for memory, states in zip(self.memory, (key_states, value_states), strict=True):
            memory[: len(states), :, start : self.length] = states
        self.keys, self.values = (memory[: len(key_states), :, : self.length] for memory in self.memory)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep some rows, in this order. Only rows that change their place are copied: (m,)."""
        moved = (indices != torch.arange(len(indices), device=indices.device)).nonzero().squeeze(1)
        for memory in self.memory:
            memory[moved, :, : self.length] = memory[indices[moved], :, : self.length]
        self.keys, self.values = (memory[: len(indices), :, : self.length] for memory in self.memory)


def cache_of(model: PreTrainedModel, room: int) -> DynamicCache:
    """Return an empty cache for at most `room` tokens in each row. Other layers, such as windows, stay transformers'."""
    cache = DynamicCache(config=model.config)
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
