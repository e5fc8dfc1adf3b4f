"""Print the hash of the result of each operation that the stages compute with, a line for each: `HASH NAME`.

    python tests/operations.py > tests/golden/operations.txt     # record the hashes of portable arithmetic
    python tests/operations.py products attention                # only some groups
    python tests/operations.py --without MKL_CBWR                # without one pin of engine/arithmetic.py
    python tests/operations.py --without kernels                 # without models/kernels.py

The settings are those of params.yaml in the current folder. All random inputs are uniform numbers of numpy, which need no
rounding. So two processors that print different hashes compute differently. tests/test_processors.py compares them.
"""

import argparse
import hashlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "stages")]

from rlhf_sentiment.engine import arithmetic  # noqa: E402 (it sets no variable yet)

KERNELS = "kernels"  # for `--without`, the kernels of models/kernels.py
Results = Iterator[tuple[str, Any]]

# The sizes are those of the tiny and of the default model, and odd ones, whose last vector is not full.
SHAPES = [(1, 16, 48), (4, 128, 300), (96, 128, 512), (1536, 128, 384), (33, 7, 5), (1, 1, 1), (0, 16, 8), (3, 0, 5), (3, 5, 0)]
DEEP = [(16, 3072, 96), (5, 4500, 33)]  # sums so long that a kernel may cut them
SIZES = [(1003,), (48, 300), (16, 96, 128)]
SORTS: tuple[Any, ...] = ("quicksort", "stable")
TOKENS = {"vocab_size": 300, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 1}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"default: {' '.join(GROUPS)}")
    parser.add_argument("--without", choices=[*arithmetic.PINS, KERNELS], metavar="PIN")
    arguments = parser.parse_args()
    arithmetic.PINS.pop(arguments.without, None)
    # From here on as in a stage: the variables are set, and then numpy and torch are loaded.
    arithmetic.pin_for_stage(Path("params.yaml"), "operations")
    import torch

    from rlhf_sentiment.engine.params import load
    from rlhf_sentiment.models import devices

    if arguments.without == KERNELS:
        assert "use_portable_products" in vars(devices)
        vars(devices)["use_portable_products"] = lambda: None
    settings = load(arithmetic.Computing, Path("params.yaml"))
    for group in arguments.groups or GROUPS:
        # As devices.set_up, which also loads torch's compiler: that takes half a minute under qemu. Each group has the same
        # random numbers, whichever groups run.
        devices.prepare_device(settings, "operations")
        torch._C._set_deterministic_algorithms(True, warn_only=True)
        torch.manual_seed(settings.seed)
        for name, result in GROUPS[group]():
            print(f"{hash_of(result)} {group}: {name}", flush=True)


def hash_of(result: Any) -> str:
    """Return a hash of tensors, arrays, numbers, texts or bytes, or of a sequence of these."""
    import numpy as np
    import torch

    hashed = hashlib.sha256()
    for part in result if isinstance(result, list | tuple) else [result]:
        if isinstance(part, torch.Tensor):
            part = part.detach().contiguous().numpy()
        if isinstance(part, str):
            part = part.encode()
        if not isinstance(part, bytes):
            part = np.ascontiguousarray(part)
            hashed.update(f"{part.dtype} {part.shape} ".encode())
            part = part.tobytes()
        hashed.update(part)
    return hashed.hexdigest()[:16]


def uniform(*shape: int, low: float = -2.0, high: float = 2.0, dtype: str = "float32") -> Any:
    """Return a tensor of numbers from [low, high), which depend on the arguments alone. Shape: `shape`."""
    import numpy as np
    import torch

    drawn = np.random.default_rng((len(shape), *shape)).random(shape, dtype=np.float64)
    return torch.from_numpy(np.asarray(drawn * (high - low) + low, dtype=dtype))


def with_gradients(compute: Callable[..., Any], *inputs: Any) -> list[Any]:
    """Return the result of `compute`, and the gradients of its weighted sum with respect to the float inputs."""
    leaves = [part.detach().clone().requires_grad_() for part in inputs]
    result = compute(*leaves)
    (result * uniform(*result.shape)).sum().backward()
    return [result, *(leaf.grad for leaf in leaves if leaf.grad is not None)]


def products() -> Results:
    """Multiply matrices, vectors and batches, in every layout."""
    import torch
    from torch.nn import functional

    for n, k, m in SHAPES + DEEP:
        yield f"({n}, {k}) @ ({k}, {m})", with_gradients(torch.mm, uniform(n, k), uniform(k, m))
        yield f"bias + ({n}, {k}) @ ({k}, {m})", with_gradients(torch.addmm, uniform(m), uniform(n, k), uniform(k, m))
    a, b = uniform(96, 64), uniform(64, 48)
    layouts = {"transposed": lambda x: x.t().contiguous().t(), "every second column": _every_second}
    for name, change in layouts.items():
        yield f"left factor {name}", with_gradients(lambda x, y, f=change: f(x) @ y, a, b)
        yield f"right factor {name}", with_gradients(lambda x, y, f=change: x @ f(y), a, b)
        yield f"both factors {name}", with_gradients(lambda x, y, f=change: f(x) @ f(y), a, b)
    yield "beta and alpha", [torch.addmm(uniform(96, 48), a, b, beta=beta, alpha=0.5) for beta in (0.0, 0.5, 1.0)]
    yield "float64", with_gradients(torch.mm, uniform(96, 64, dtype="float64"), uniform(64, 48, dtype="float64"))
    yield "matrix by vector", with_gradients(torch.mv, a, uniform(64))
    yield "vector by vector", with_gradients(torch.dot, uniform(1003), uniform(1003) * 2)
    yield "linear of three dimensions", with_gradients(functional.linear, uniform(16, 96, 128), uniform(1, 128), uniform(1))
    for n, k, m in SHAPES:
        yield f"8 of ({n}, {k}) @ ({k}, {m})", with_gradients(torch.bmm, uniform(8, n, k), uniform(8, k, m))
    yield "8 transposed", with_gradients(lambda x, y: x @ y.transpose(-1, -2), uniform(2, 4, 96, 32), uniform(2, 4, 95, 32))


def _every_second(x: Any) -> Any:
    wide = x.new_zeros(x.shape[0], 2 * x.shape[1])
    wide[:, ::2] = x
    return wide[:, ::2]


def attention() -> Results:
    """Attend in one operation and in separate steps: causally, with padding, and from one new token."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention as attend

    for size in (8, 32):
        for queries, keys in ((96, 96), (1, 97), (37, 37)):
            factors = [uniform(4, 2, length, size) for length in (queries, keys, keys)]
            factors[2] = factors[2] * 1.5
            causal: dict[str, Any] = {"is_causal": True}
            padded: dict[str, Any] = {"attn_mask": torch.arange(keys) >= torch.tensor([0, 3, 7, 1])[:, None, None, None]}
            for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
                with sdpa_kernel(backend):
                    name = f"{backend.name.lower()}, {queries} queries, {keys} keys, width {size}"
                    yield f"{name}, causal", with_gradients(partial(attend, **causal), *factors)
                    yield f"{name}, padded", with_gradients(partial(attend, **padded), *factors)


def functions() -> Results:
    """Compute functions of each element, and their gradients."""
    import torch
    from torch.nn import functional

    of_all: dict[str, Callable[..., Any]] = {
        **{name: getattr(torch, name) for name in ("exp", "expm1", "tanh", "sigmoid", "sin", "cos", "erf")},
        "gelu tanh": lambda x: functional.gelu(x, approximate="tanh"),
        "gelu tanh in steps": lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608 * (x + 0.044715 * torch.pow(x, 3.0)))),
        **{name: getattr(functional, name) for name in ("gelu", "silu", "softplus", "logsigmoid")},
    }
    of_positive: dict[str, Callable[..., Any]] = {name: getattr(torch, name) for name in ("log", "log1p", "rsqrt")}
    of_positive |= {"power": lambda x: x**1.7, "quotient": lambda x: 1.7 / x}
    for low, group in ((-6.0, of_all), (1e-3, of_positive)):
        for name, compute in group.items():
            inputs = [uniform(*size, low=low, high=6.0) for size in SIZES]
            yield name, [part for x in inputs for part in with_gradients(compute, x)]
            yield f"{name} of every second element", with_gradients(lambda x, f=compute: f(x[:, ::2]), inputs[1])
            yield f"{name} in float64", with_gradients(compute, inputs[0].double())


def reductions() -> Results:
    """Sum over elements, rows and columns."""
    import torch
    from torch.nn import functional

    whole: dict[str, Callable[..., Any]] = {"sum": torch.sum, "mean": torch.mean, "std": torch.std, "norm": torch.norm}
    for name, compute in whole.items():
        yield f"{name} of all", [part for size in SIZES for part in with_gradients(compute, uniform(*size))]
        yield f"{name} of every second element", with_gradients(lambda x, f=compute: f(x[:, ::2]), uniform(48, 300))
        yield f"{name} in float64", with_gradients(compute, uniform(48, 300, dtype="float64"))
        yield f"{name} of 300000 numbers", compute(uniform(300_000))
    along: dict[str, Callable[..., Any]] = {
        "sum": torch.sum,
        "mean": torch.mean,
        "cumsum": torch.cumsum,
        "softmax": torch.softmax,
        "log_softmax": torch.log_softmax,
        "logsumexp": torch.logsumexp,
    }
    for name, compute in along.items():
        for dim in (0, -1):
            inputs = [uniform(*size) for size in SIZES]
            results = [part for x in inputs for part in with_gradients(lambda y, f=compute, d=dim: f(y, dim=d), x)]
            yield f"{name} along {dim}", results
    for width in (16, 128, 1003):
        weights = (uniform(width), uniform(width) * 0.5)
        compute = lambda x, w, b: functional.layer_norm(x, (x.shape[-1],), w, b)  # noqa: E731
        yield f"layer norm of width {width}", with_gradients(compute, uniform(8, 12, width), *weights)
        yield (
            f"rms norm of width {width}",
            with_gradients(
                lambda x, w: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * w, uniform(8, 12, width), weights[0]
            ),
        )
    labels = torch.arange(48) * 7 % 300
    labels[::5] = -100
    yield "cross entropy", with_gradients(lambda x: functional.cross_entropy(x, labels), uniform(48, 300))


def indices() -> Results:
    """Sort, look up, and add gradients where an index repeats."""
    import torch
    from torch.nn import functional

    table, repeated = uniform(300, 128), torch.arange(1536).reshape(16, 96) ** 2 % 37
    yield "embedding", with_gradients(lambda weight: functional.embedding(repeated, weight), table)
    yield "gather", with_gradients(lambda x: x.gather(-1, repeated[:, :5]), uniform(16, 300))
    yield "scatter_add", torch.zeros(16, 300).scatter_add(-1, repeated, uniform(16, 96))
    yield "index_add", torch.zeros(300, 8).index_add(0, repeated.flatten(), uniform(1536, 8))
    yield "rows of an index", with_gradients(lambda x: x[repeated.flatten()], table)
    coarse = (uniform(48, 300) * 8).round()  # with equal numbers
    yield "sort", [*coarse.sort(dim=-1), *coarse.sort(dim=-1, stable=True, descending=True)]
    yield "topk", coarse.topk(7, dim=-1).values
    yield "argmax", [coarse.argmax(dim=-1), coarse.max(dim=0).values]
    cumulative = uniform(48, 300, low=0.0).cumsum(dim=-1)
    yield "searchsorted", torch.searchsorted(cumulative, cumulative[:, -1:] * uniform(48, 1, low=0.0, high=1.0), right=True)


def draws() -> Results:
    """Draw from the generators of torch, numpy and Python."""
    import random

    import numpy as np
    import torch
    from torch.nn import functional

    yield "torch, uniform", [torch.rand(1003), torch.rand(48, 301)]
    yield "torch, normal", [torch.randn(7), torch.randn(1003), torch.empty(128, 384).normal_(0.0, 0.02)]
    yield "torch, permutation", [torch.randperm(1003), torch.randint(0, 1003, (99,))]
    yield "torch, dropout", functional.dropout(uniform(48, 300), 0.1)
    yield "torch, multinomial", torch.multinomial(torch.softmax(uniform(48, 300), dim=-1), 3)
    drawn = np.random.default_rng((3, 1, 4))
    yield "numpy, uniform", [drawn.random(1003, dtype=np.float32), drawn.random(1003)]
    yield "numpy, normal", [drawn.standard_normal(100_003), drawn.standard_normal(1003, dtype=np.float32)]
    yield "numpy, permutation", [drawn.permutation(1003), drawn.integers(0, 99, 1003), drawn.choice(1003, 99, replace=False)]
    own = random.Random(3)
    yield "Python", [own.random(), own.gauss(0, 1), own.sample(range(1003), 99), own.choices(range(9), [2.5] * 9, k=99)]


def optimizers() -> Results:
    """Take three steps of AdamW with clipped gradients."""
    import torch

    for decay in (0.0, 0.01):
        weights = [uniform(*size) for size in [*SIZES, (128, 384), (3,)]]
        optimizer = torch.optim.AdamW(weights, lr=1e-3, weight_decay=decay, fused=True)
        norms = []
        for step in range(3):
            for weight in weights:
                weight.grad = torch.sin(weight * (step + 1)) * 3
            norms.append(torch.nn.utils.clip_grad_norm_(weights, 1.0))
            optimizer.step()
        yield f"AdamW with weight decay {decay}", [*weights, *norms]


def critic() -> Results:
    """Fit a critic without a trunk, and compute its values and their gradients."""
    import torch

    from rlhf_sentiment.models.value_head import Critic

    for width in (16, 128):
        of, hidden = Critic(width), uniform(900, width)
        of.fit(hidden, hidden.mean(1).sin(), (1, 2))
        values = with_gradients(of.value, hidden)
        yield f"critic of width {width}", [*of.parameters(), *(weight.grad for weight in of.parameters()), *values]
        assert torch.stack([weight.abs().max() for weight in of.parameters()]).all()


def step() -> Results:
    """Train a small transformer for two steps. It needs no library but torch, and therefore starts fast under qemu."""
    import torch
    from torch import nn

    words, places = nn.Embedding(300, 32), nn.Embedding(60, 32)
    gelu = nn.GELU(approximate="tanh")
    block = nn.TransformerEncoderLayer(32, 4, 128, dropout=0.1, activation=gelu, batch_first=True, norm_first=True)
    weights = list(nn.ModuleList([words, places, block]).parameters())
    optimizer = torch.optim.AdamW(weights, lr=1e-3, fused=True)
    ids = torch.arange(8 * 60).reshape(8, 60) ** 2 % 300
    causal = nn.Transformer.generate_square_subsequent_mask(60)
    losses = []
    for _ in range(2):
        states = block(words(ids) + places.weight, src_mask=causal, is_causal=True)  # (8, 60, 32)
        logits = states @ words.weight.t()
        losses.append(nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten()))
        losses[-1].backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    yield "two training steps", [*losses, *weights]


def gpt2() -> Results:
    """Train GPT-2 with dropout."""
    from transformers import GPT2Config, GPT2LMHeadModel

    dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.1)
    for width in (16, 128):
        size = {"n_embd": width, "n_layer": 2, "n_head": 4, "n_positions": 128}
        yield from _model(f"width {width}", GPT2LMHeadModel(GPT2Config(**size, **dropouts, **TOKENS)))


def llama() -> Results:
    """Train Llama with half as many heads of keys as of queries."""
    from transformers import LlamaConfig, LlamaForCausalLM

    for width in (16, 128):
        heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
        size = {"hidden_size": width, "intermediate_size": 3 * width, "num_hidden_layers": 2}
        yield from _model(f"width {width}", LlamaForCausalLM(LlamaConfig(**size, **heads, **TOKENS)))


def _model(name: str, model: Any) -> Results:
    """Start, train, sample from and score with a causal language model."""
    import torch

    from rlhf_sentiment.models.forward import before_responses, states
    from rlhf_sentiment.models.loading import made_fast
    from rlhf_sentiment.sampling.rollout import batch_of, respond, score_tokens, uniforms

    yield f"{name}, initial weights", list(model.parameters())
    made_fast(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    ids = torch.arange(8 * 60).reshape(8, 60) ** 2 % 300
    losses = []
    model.train()
    for _ in range(2):
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss)
    yield f"{name}, two training steps", [*losses, *model.parameters()]
    model.eval()
    rows = ids.tolist()
    prompts, responses = ([row[: 3 + k] for k, row in enumerate(rows)], [row[20 : 25 + k] for k, row in enumerate(rows)])
    noise = torch.stack([uniforms(9, k) for k in range(len(rows))])
    yield f"{name}, sampled responses", list(respond(model, prompts, noise, eos=0, pad=1, temperature=0.7, top_p=0.9))
    batch = batch_of(prompts, responses, 1, "cpu")
    scored = score_tokens(model, batch, 0.7, with_entropy=True)
    scored.log_probs.sum().backward()
    before = before_responses(batch.attention_mask, batch.length)
    hidden = states(model.base_model, batch.sequences, batch.attention_mask, before)
    yield f"{name}, scores of tokens", [*scored, hidden, *(weight.grad for weight in model.parameters())]


def arrays() -> Results:
    """Compute functions, sums and products with numpy."""
    import numpy as np

    for dtype in ("float32", "float64"):
        x, y = (uniform(48, 301, low=low, high=6.0, dtype=dtype).numpy() for low in (-6.0, 1e-3))
        for name in ("exp", "expm1", "tanh", "sin", "cos", "exp2", "arctan", "sqrt", "log", "log1p", "log2", "log10"):
            of = y if name.startswith("log") or name == "sqrt" else x
            compute = getattr(np, name)
            yield f"{name}, {dtype}", [compute(of), compute(of[:, ::2])]
        yield f"argsort, {dtype}", [np.argsort(y, axis=axis, kind=kind) for axis in (None, 0, 1) for kind in SORTS]
        yield f"product of all, {dtype}", [np.prod(y / 3, axis=0), np.prod(y.T / 3, axis=0)]
        yield f"power, {dtype}", [y**1.7, y**2, 2.0**x]
        for name in ("sum", "mean", "std", "var", "cumsum", "median", "sort"):
            compute = getattr(np, name)
            yield f"{name}, {dtype}", [compute(y / 3), compute(y / 3, axis=0), compute(y.T, axis=0), compute(y[:, ::3], axis=1)]
        yield f"norm, {dtype}", [np.linalg.norm(x), np.linalg.norm(x, axis=1)]
        yield f"percentile, {dtype}", np.percentile(x, [2.5, 50, 97.5], axis=1)
        yield f"dot, {dtype}", [np.dot(x.ravel(), y.ravel()), x[0] @ y[0], np.vdot(x[:, ::2], y[:, ::2])]
        yield f"products, {dtype}", [x @ y.T, x.T @ y, x @ y[0], x[:, ::2] @ y[:, ::2].T, np.einsum("ij,ij->i", x, y)]
        square = x[:, :48] + 9 * np.eye(48, dtype=dtype)
        yield f"solve, {dtype}", [np.linalg.solve(square, y), np.linalg.inv(square)]
        spectra = [np.linalg.svd(square)[1], np.linalg.eigh(square @ square.T)[0], np.linalg.qr(square)[1]]
        yield f"decompositions, {dtype}", spectra


def statistics() -> Results:
    """Compute the intervals and tests of the report with scipy and statsmodels."""
    import numpy as np
    from scipy import optimize, special

    from rlhf_sentiment.evaluation.statistics import holm, improvement, prompts_needed

    after, before = (np.random.default_rng(seed).random((60, 2)) for seed in (1, 2))
    found = improvement(after**0.5, before, 0.95, 499, 1)
    yield "improvement", np.array(list(found.values()))
    yield "holm", holm([0.04, 0.01, 0.02])
    yield "prompts needed", [prompts_needed(spread, 0.05) for spread in (0.1, 0.3, 0.7)]
    x = np.linspace(0.001, 0.999, 1003)
    for name in ("ndtr", "ndtri", "expit", "logit", "gammaln", "erf", "xlogy"):
        compute = getattr(special, name)
        yield name, compute(x, x) if name == "xlogy" else compute(x)
    yield "L-BFGS-B", optimize.minimize(optimize.rosen, np.full(9, 0.5), jac=optimize.rosen_der, method="L-BFGS-B").x


def classifier() -> Results:
    """Train a judge with scikit-learn."""
    import numpy as np

    from rlhf_sentiment.evaluation.classifier import Judge, examine

    texts = sentences(120)
    labels = np.arange(len(texts)) % 2
    judge = Judge.train(texts, labels, 2, 2, 4.0)
    positive = judge.positive(texts)
    yield "weights", [judge.vectorizer.idf_, judge.classifier.coef_, judge.classifier.intercept_]
    yield "P(positive)", positive
    yield "strongest", [*judge.strongest(9)["positive"], *judge.strongest(9)["negative"]]
    yield "examined", np.array(list(examine(positive, labels).values()))


def sentences(count: int) -> list[str]:
    """Return sentences of the grammar, a positive one and a negative one in turn."""
    import random

    from rlhf_sentiment.data import grammar

    rng = random.Random(5)
    return [grammar.write_sentence((grammar.POSITIVE, grammar.NEGATIVE)[k % 2], rng) for k in range(count)]


def texts() -> Results:
    """Train a tokenizer, and write numbers as JSON and CSV."""
    import io
    import json

    import numpy as np
    import pandas as pd
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.train_from_iterator(sentences(300), trainers.BpeTrainer(vocab_size=400, show_progress=False))
    yield "tokenizer", bpe.to_str()
    x = uniform(301, 3, dtype="float64").numpy()
    yield "JSON", json.dumps([round(float(number), digits) for number in x.ravel() for digits in (4, 16)])
    table = pd.DataFrame(x, columns=list("abc")).assign(group=np.arange(301) % 7)
    file = io.StringIO()
    table.round(5).to_csv(file, index=False)
    table.groupby("group").agg(["mean", "std", "sum"]).to_csv(file)
    table.rolling(9).mean().to_csv(file)
    table.corr().to_csv(file)
    yield "CSV", file.getvalue()


def pictures() -> Results:
    """Draw lines, text, hatches and transparent areas with matplotlib."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    x = uniform(99, 2).numpy()
    figure, axes = plt.subplots(1, 2, figsize=(6, 3), dpi=120, layout="constrained")
    axes[0].plot(x[:, 0].cumsum(), x[:, 1].cumsum(), label="a line")
    axes[0].fill_between(range(99), x[:, 0], alpha=0.3)
    axes[0].legend(frameon=False)
    axes[1].bar(range(5), abs(x[:5, 0]), yerr=0.1, hatch="//")
    axes[1].set(title="Mean P(positive) and $\\sqrt{2}$", xlabel="step")
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    yield "PNG", file.getvalue()


GROUPS: dict[str, Callable[[], Results]] = {
    "products": products,
    "attention": attention,
    "functions": functions,
    "reductions": reductions,
    "indices": indices,
    "draws": draws,
    "optimizers": optimizers,
    "critic": critic,
    "step": step,
    "gpt2": gpt2,
    "llama": llama,
    "arrays": arrays,
    "statistics": statistics,
    "classifier": classifier,
    "texts": texts,
    "pictures": pictures,
}


if __name__ == "__main__":
    main()
