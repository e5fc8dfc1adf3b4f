"""The products of portable arithmetic, against float64 on every layout in use."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from rlhf_sentiment.models import kernels

EPSILON = torch.finfo(torch.float32).eps
SCHEMA = "mkldnn::_linear_pointwise(Tensor X, Tensor W, Tensor? B, str attr, Scalar?[] scalars, str? algorithm) -> Tensor Y"


@pytest.fixture(autouse=True)
def _replaced() -> None:
    assert kernels.use_portable_products() is None


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def bound(a: Tensor, b: Tensor) -> Tensor:
    """Return how far any float32 product may be from the exact one (Higham, Accuracy and Stability, section 3.1)."""
    steps = a.shape[1] + 2
    return steps * EPSILON * (a.abs().double() @ b.abs().double()) + 1e-30


LAYOUTS: dict[str, Callable[[int, int], Tensor]] = {
    "contiguous": lambda rows, columns: random(rows, columns),
    "transposed": lambda rows, columns: random(columns, rows, seed=1).t(),
    "every second column": lambda rows, columns: random(rows, 2 * columns, seed=2)[:, ::2],
    "part of a tensor": lambda rows, columns: random(rows + 3, columns + 5, seed=3)[3:, 5:],
    "one row expanded": lambda rows, columns: random(1, columns, seed=4).expand(rows, columns),
    "one number expanded": lambda rows, columns: random(1, 1, seed=5).expand(rows, columns),
}
SIZES = [(7, 5, 3), (1, 128, 300), (64, 1, 9), (33, 128, 1), (1, 1, 1), (192, 48, 64), (3, 700, 2)]
EMPTY = [(0, 4, 3), (3, 0, 2), (3, 4, 0), (0, 0, 0)]


def test_the_products_and_their_gradients_are_onednns() -> None:
    """MKL's products of these shapes have other last bits, which its batches of one show."""
    a, b, bias, gradient = random(192, 48).requires_grad_(), random(48, 64, seed=1), random(64, seed=2), random(192, 64, seed=3)

    def onednns(x: Tensor, y: Tensor, added: Tensor | None = None) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, y.t(), added, "none", [], "")

    with torch.no_grad():
        assert not torch.equal(onednns(a, b), torch.bmm(a[None], b[None])[0])
        assert torch.equal(a @ b, onednns(a, b))
        assert torch.equal(torch.addmm(bias, a, b), onednns(a, b, bias))
    assert torch.equal(torch.autograd.grad(a @ b, a, gradient)[0], onednns(gradient, b.t()))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("first", LAYOUTS)
@pytest.mark.parametrize("second", LAYOUTS)
def test_products_and_gradients_are_exact_within_float32_rounding(first: str, second: str, size: tuple[int, int, int]) -> None:
    rows, inner, columns = size
    a, b = LAYOUTS[first](rows, inner).requires_grad_(), LAYOUTS[second](inner, columns).requires_grad_()
    bias, gradient = random(columns, seed=6), random(rows, columns, seed=7)
    exact = a.double() @ b.double()
    for found, wanted in ((a @ b, exact), (torch.addmm(bias, a, b), exact + bias)):
        assert found.shape == (rows, columns)
        assert found.dtype == torch.float32
        assert bool(((found - wanted).abs() <= bound(a, b) + 2 * EPSILON * wanted.abs()).all())
    of_a, of_b = torch.autograd.grad(a @ b, (a, b), gradient)
    assert bool(((of_a - gradient.double() @ b.double().t()).abs() <= bound(gradient, b.t())).all())
    assert bool(((of_b - a.double().t() @ gradient.double()).abs() <= bound(a.t(), gradient)).all())


def test_the_gradient_of_a_sum_has_the_right_layout() -> None:
    """`sum` gives a gradient that is one number, expanded. oneDNN must not read it as a whole tensor."""
    x, weight = random(6, 4).requires_grad_(), random(4, 5, seed=1).requires_grad_()
    (x @ weight).sum().backward()
    assert x.grad is not None
    assert weight.grad is not None
    torch.testing.assert_close(x.grad, weight.detach().sum(1).expand(6, 4))
    torch.testing.assert_close(weight.grad, x.detach().sum(0)[:, None].expand(4, 5))


@pytest.mark.parametrize("size", EMPTY, ids=str)
def test_empty_products_are_zeros(size: tuple[int, int, int]) -> None:
    rows, inner, columns = size
    a, b = torch.ones(rows, inner, requires_grad=True), torch.ones(inner, columns, requires_grad=True)
    assert torch.equal(a @ b, torch.zeros(rows, columns))
    assert torch.equal(torch.addmm(torch.ones(columns), a, b), torch.ones(rows, columns))
    (a @ b).sum().backward()
    assert a.grad is not None
    assert torch.equal(a.grad, torch.full((rows, inner), float(columns)))


@pytest.mark.parametrize("bias", [(4,), (3, 4), (1, 4), (3, 1), (1,), ()], ids=str)
@pytest.mark.parametrize(("beta", "alpha"), [(1, 1), (0.5, 1), (1, 2), (0, 1), (0, 0.25)])
def test_addmm_has_every_form(bias: tuple[int, ...], beta: float, alpha: float) -> None:
    a, b, added = random(3, 5), random(5, 4, seed=1), random(*bias, seed=2)
    found = torch.addmm(added, a, b, beta=beta, alpha=alpha)
    torch.testing.assert_close(found, (beta * added.double() + alpha * (a.double() @ b.double())).float())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64])
def test_other_types_keep_the_kernel_of_torch(dtype: torch.dtype) -> None:
    a, b = torch.arange(6).reshape(2, 3).to(dtype), torch.arange(6).reshape(3, 2).to(dtype)
    assert (a @ b).tolist() == [[10, 13], [28, 40]]
    assert (a @ b).dtype == dtype
    assert torch.addmm(torch.ones(2, dtype=dtype), a, b).tolist() == [[11, 14], [29, 41]]


def test_batches_linear_layers_and_vectors_agree_with_float64() -> None:
    a, b, vector = random(4, 6, 5), random(4, 5, 7, seed=1), random(5, seed=2)
    layer = torch.nn.Linear(5, 7)
    for found, wanted in (
        (a @ b, a.double() @ b.double()),
        (a @ vector, a.double() @ vector.double()),
        (layer(a), a.double() @ layer.weight.double().t() + layer.bias.double()),
    ):
        torch.testing.assert_close(found, wanted.float(), rtol=1e-5, atol=1e-6)


def test_the_private_operator_has_not_changed() -> None:
    assert str(torch.ops.mkldnn._linear_pointwise.default._schema) == SCHEMA
    x, weight, bias = random(3, 4), random(5, 4, seed=1), random(5, seed=2)
    found = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    torch.testing.assert_close(found, (x.double() @ weight.double().t() + bias).float())


def test_a_torch_without_the_operator_keeps_its_products(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced: list[str] = []

    class Recorded:
        def __init__(self, *_: str) -> None: ...

        def impl(self, name: str, *_: Any, **__: Any) -> None:
            replaced.append(name)

    class Without:
        mkldnn = object()

    monkeypatch.setattr(kernels, "Library", Recorded)
    monkeypatch.setattr(kernels, "_registered", [])
    monkeypatch.setattr(torch, "ops", Without())
    reason = kernels.use_portable_products.__wrapped__()
    assert reason is not None
    assert "_linear_pointwise" in reason
    assert torch.__version__ in reason
    assert replaced == []
