"""Kernels of torch's CPU that have the same bytes on every processor with AVX2, and for every number of threads.

engine/arithmetic.py has the variables that make torch's own kernels portable. Three kinds of kernels need more. They are
replaced below autograd, so that gradients use them too:

- Float32 products (`mm`, `addmm`). MKL's portable kernels are less than half as fast as its best ones. oneDNN's AVX2 kernels
  are portable and fast. torch uses them in compiled graphs, through its private operator `mkldnn::_linear_pointwise`.
- The sum and the mean of a whole tensor (`sum`, `mean`). torch adds one partial sum for each thread.
- The gradients of the weights of a layer norm. torch adds one partial sum for each thread here, too.

tests/test_kernels.py compares each with torch's own kernel.
"""

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.library import Library, get_kernel

# torch sums smaller tensors with one thread (at::internal::GRAIN_SIZE).
_LARGE_SUM = 32_768
_SUM_ROW = 1_024

_registered: list[Library] = []  # torch removes the kernels of a library that is garbage


@cache
def use_portable_kernels() -> str | None:
    """Replace the kernels of this process.

    Returns:
        None, or the reason why products stay MKL's, which are portable but slow.
    """
    library = Library("aten", "IMPL")
    _registered.append(library)
    reason = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that a kernel is replaced
        try:
            linear = torch.ops.mkldnn._linear_pointwise.default
        except (AttributeError, RuntimeError):
            reason = f"torch {torch.__version__} has no operator mkldnn::_linear_pointwise"
        else:
            _replace_products(library, linear)
        _replace_sums(library)
    return reason


def _replace_products(library: Library, linear: Any) -> None:
    """Replace the float32 products.

    Args:
        library: registers the kernels.
        linear: computes x @ w.T + bias, of shape (N, M), for x (N, K), w (M, K) and bias (M,) or None.
    """
    own_mm, own_addmm = (get_kernel(f"aten::{name}", "CPU") for name in ("mm", "addmm"))

    def mm(keys: Any, a: Tensor, b: Tensor) -> Tensor:
        if a.dtype == b.dtype == torch.float32 and a.shape[1]:
            return linear(a, b.t(), None, "none", [], "")
        return own_mm.call_boxed(keys, a, b)

    def addmm(keys: Any, bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        is_linear = beta == alpha == 1 and bias.shape == b.shape[1:]
        if is_linear and bias.dtype == a.dtype == b.dtype == torch.float32 and a.shape[1]:
            return linear(a, b.t(), bias, "none", [], "")
        return own_addmm.call_boxed(keys, bias, a, b, beta=beta, alpha=alpha)

    library.impl("mm", mm, "CPU", with_keyset=True)
    library.impl("addmm", addmm, "CPU", with_keyset=True)


def _replace_sums(library: Library) -> None:
    """Replace the float32 sums whose order depends on the number of threads."""
    own_sum, own_mean, own_backward = (
        get_kernel(f"aten::{name}", "CPU") for name in ("sum", "mean", "native_layer_norm_backward")
    )

    def sum_of_all(keys: Any, x: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
        """Add rows of a fixed length, and then their sums."""
        if x.dtype != torch.float32 or dtype not in (None, torch.float32) or x.numel() < _LARGE_SUM:
            return own_sum.call_boxed(keys, x, dtype=dtype)
        flat = x.reshape(-1)
        whole = len(flat) - len(flat) % _SUM_ROW
        return flat[:whole].view(-1, _SUM_ROW).sum(1).sum() + flat[whole:].sum()

    def mean_of_all(keys: Any, x: Tensor, *, dtype: torch.dtype | None = None) -> Tensor:
        if x.dtype != torch.float32 or dtype not in (None, torch.float32) or x.numel() < _LARGE_SUM:
            return own_mean.call_boxed(keys, x, dtype=dtype)
        return x.sum() / x.numel()

    def layer_norm_backward(
        keys: Any,
        gradient: Tensor,
        x: Tensor,
        shape: Sequence[int],
        mean: Tensor,
        rstd: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        wanted: Sequence[bool],
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of x, weight and bias. A sum over rows adds in the order of the rows."""
        if x.dtype != torch.float32 or gradient.dtype != torch.float32:
            return own_backward.call_boxed(keys, gradient, x, shape, mean, rstd, weight, bias, wanted)
        of_x, _, _ = own_backward.call_boxed(keys, gradient, x, shape, mean, rstd, weight, bias, [wanted[0], False, False])
        of_weight = (gradient * (x - mean) * rstd).reshape(-1, *shape).sum(0) if wanted[1] else None
        of_bias = gradient.reshape(-1, *shape).sum(0) if wanted[2] else None
        return of_x, of_weight, of_bias

    library.impl("mean", mean_of_all, "CPU", with_keyset=True)
    library.impl("sum", sum_of_all, "CPU", with_keyset=True)
    library.impl("native_layer_norm_backward", layer_norm_backward, "CPU", with_keyset=True)
