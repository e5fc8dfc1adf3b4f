"""Float32 matrix products by oneDNN, which has the same bytes on every processor with AVX2 and the speed of MKL.

torch computes products with MKL. The kernels that MKL shares between vendors are less than half as fast as its best ones.
oneDNN's AVX2 kernels do not depend on the vendor, and they are in every wheel of torch for x86-64. torch itself uses them only
in other formats and in compiled graphs, through the operator `mkldnn::_linear_pointwise`. Here this operator computes
`aten::mm` and `aten::addmm`, below autograd, so that gradients use it too.

The operator is private to torch. tests/test_products.py compares it with torch's own products.
"""

import warnings
from functools import cache

import torch
from torch import Tensor
from torch.library import Library


@cache
def use_onednn() -> str | None:
    """Let oneDNN compute the float32 products of this process on the CPU.

    Returns:
        None. If this torch does not have the operator, the reason why the products stay MKL's. These are portable, but slower.
    """
    try:
        linear = torch.ops.mkldnn._linear_pointwise.default
    except (AttributeError, RuntimeError):
        return f"torch {torch.__version__} has no mkldnn::_linear_pointwise"

    def product(a: Tensor, b: Tensor, bias: Tensor | None = None) -> Tensor:
        """Return a @ b + bias, of shape (N, M), for a (N, K), b (K, M) and bias (M,)."""
        return linear(a, b.t(), bias, "none", [], "")

    def is_onednns(*factors: Tensor) -> bool:
        return all(factor.dtype == torch.float32 and factor.numel() > 0 for factor in factors)

    def mm(a: Tensor, b: Tensor) -> Tensor:
        return product(a, b) if is_onednns(a, b) else torch.bmm(a[None], b[None])[0]

    def addmm(bias: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
        if not is_onednns(a, b) or bias.dtype != torch.float32:
            return torch.baddbmm(bias.expand(a.shape[0], b.shape[1])[None], a[None], b[None], beta=beta, alpha=alpha)[0]
        if beta == alpha == 1 and bias.shape == b.shape[1:]:
            return product(a, b, bias)
        scaled = product(a, b) * alpha if alpha != 1 else product(a, b)
        return scaled + bias * beta if beta != 0 else scaled

    library = Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that a kernel is replaced
        library.impl("mm", mm, "CPU")
        library.impl("addmm", addmm, "CPU")
    _registered.append(library)  # torch removes the kernels of a library that is garbage
    return None


_registered: list[Library] = []
