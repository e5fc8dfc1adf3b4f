"""Float32 matrix products that have the same bytes on every processor with AVX2, and the speed of MKL's best kernels.

engine/arithmetic.py has the variables that make torch's own kernels portable. But MKL's portable products are less than half as
fast as its best ones. oneDNN's AVX2 products are portable and fast. torch uses them in compiled graphs, through its operator
`mkldnn::_linear_pointwise`. Here the operator computes `aten::mm` and `aten::addmm`, below autograd, so that gradients use it.

The operator is private to torch. tests/test_kernels.py compares it with float64.
"""

import warnings
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.library import Library, get_kernel

_registered: list[Library] = []  # torch removes the kernels of a library that is garbage


@cache
def use_portable_products() -> str | None:
    """Let oneDNN compute the float32 products of this process.

    Returns:
        None, or the reason why products stay MKL's, which are portable but slow.
    """
    try:
        linear = torch.ops.mkldnn._linear_pointwise.default
    except (AttributeError, RuntimeError):
        return f"torch {torch.__version__} has no operator mkldnn::_linear_pointwise"
    own_mm, own_addmm = (get_kernel(f"aten::{name}", "CPU") for name in ("mm", "addmm"))

    def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return a @ b + bias, of shape (N, M), for a (N, K), b (K, M) and bias (M,)."""
        return linear(a, b.t(), bias, "none", [], "")

    def mm(keys: Any, a: Tensor, b: Tensor) -> Tensor:
        if a.dtype == b.dtype == torch.float32 and a.shape[1]:
            return product(a, b)
        return own_mm.call_boxed(keys, a, b)

    def addmm(keys: Any, bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        is_linear = beta == alpha == 1 and bias.shape == b.shape[1:]
        if is_linear and bias.dtype == a.dtype == b.dtype == torch.float32 and a.shape[1]:
            return product(a, b, bias)
        return own_addmm.call_boxed(keys, bias, a, b, beta=beta, alpha=alpha)

    library = Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that a kernel is replaced
        library.impl("mm", mm, "CPU", with_keyset=True)
        library.impl("addmm", addmm, "CPU", with_keyset=True)
    _registered.append(library)
    return None
