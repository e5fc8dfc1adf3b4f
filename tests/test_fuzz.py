"""Random damage to settings and files: the result is their content or a readable message, never a traceback.

The cases come from hypothesis, and are the same in every run. A failure names the smallest case that it found.
"""

import copy
import gzip
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rlhf_sentiment.data.files import files_at
from rlhf_sentiment.data.intake import Intake
from rlhf_sentiment.data.prompts import read_prompts
from rlhf_sentiment.data.shapes import PREFERENCES
from rlhf_sentiment.engine.errors import ConfigError, StageError
from rlhf_sentiment.engine.params import load
from rlhf_sentiment.engine.records import read_json, read_rows, read_table
from rlhf_sentiment.settings.whole import Params

from .conftest import FUZZ, ROOT, assert_names, tiny_params, write_llama
from .test_messages import HOSTILE, tame

LONGEST = 1000  # characters of a line


def cases(count: int) -> Callable[[Any], Any]:
    """Run a test on this number of cases, and on more in `make thorough`."""
    return settings(
        max_examples=count * FUZZ, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


# Damage to a text by a program, an editor or a careless user.
SNIPPETS = st.sampled_from(
    [
        *"\x00\t\r\n \"'{}[],:|>%@\\é\ufeff\u202e\x9b\u2028\ud83c",
        "\n\n",
        ": ",
        "- ",
        "? ",
        "# ",
        "&a ",
        "*a",
        "<<: ",
        "---\n",
        "...\n",
    ]
    + [f"!!{tag} " for tag in ("bool", "int", "float", "timestamp", "binary", "set", "omap", "pairs", "python/tuple", "x")]
    + ["---\n", "...\n", "2024-13-45", "1:99", "1e999", ".nan", "-.inf", "0x", "NaN", "null", "{}", "\x1b[31m", HOSTILE]
    + ["[" * 3000, "1" * 5000, "x" * 5000]
)
TEXTS = st.one_of(st.text(max_size=20), SNIPPETS)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(), st.sampled_from([10**400, 2**63, -1, 0, 10**9]), TEXTS
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.one_of(TEXTS, st.integers()), inner, max_size=3)),
    max_leaves=5,
)


def places(tree: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each key and item of a tree."""
    for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield (*above, key)
        yield from places(value, (*above, key))


@st.composite
def changed_tree(draw: st.DrawFn, whole: Any) -> Any:
    """Return a copy of a tree in which one to three keys or items are removed, renamed or of another value or type."""
    tree = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        *above, last = draw(st.sampled_from(list(places(tree)) or [(0,)]))
        inner = tree
        for key in above:
            inner = inner[key]
        kind = draw(st.sampled_from(["value", "value", "missing", "renamed", "unknown"]))
        if kind == "value" and inner:
            inner[last] = draw(VALUES)
        elif kind == "unknown" and isinstance(inner, dict):
            inner[draw(TEXTS)] = draw(VALUES)
        elif inner:
            value = inner.pop(last)
            if kind == "renamed" and isinstance(inner, dict):
                inner[draw(TEXTS)] = value
    return tree


@st.composite
def changed(draw: st.DrawFn, whole: bytes, longest: int = 5000) -> bytes:
    """Return `whole` with one to three changes: truncated, a bit flipped, a part removed or repeated, or something inserted."""
    data = whole
    for _ in range(draw(st.integers(1, 3))):
        at, end = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        kind = draw(st.sampled_from(["cut", "flip", "insert", "insert", "replace", "missing", "twice"]))
        put = draw(st.one_of(st.binary(max_size=8), SNIPPETS.map(lambda text: text.encode("utf-8", "surrogatepass"))))[:longest]
        if kind == "cut":
            data = data[:at]
        elif kind == "flip" and at < len(data):
            data = data[:at] + bytes([data[at] ^ 1 << draw(st.integers(0, 7))]) + data[at + 1 :]
        elif kind == "missing":
            data = data[:at] + data[min(end, at + 50) :]
        elif kind == "twice":
            data = data[:end] + data[at:]
        else:
            data = data[:at] + put + data[at + (len(put) if kind == "replace" else 0) :]
    return data


def settings_or_lines(path: Path) -> None:
    """Load settings. If they are wrong, the error has at most twenty lines and the number of the other lines."""
    try:
        load(Params, path, whole=True)
    except ConfigError as error:
        lines = str(error).split("\n")
        assert len(lines) <= 21
        for line in lines:
            tame(line, LONGEST)
            assert line.startswith(f"{path}: ")


def rows_or_line(read: Callable[[], object]) -> None:
    """Call `read`. If it fails, the error is one line."""
    try:
        read()
    except StageError as error:
        tame(str(error), LONGEST)


@cases(60)
@given(changed_tree(tiny_params()))
def test_changed_values_of_settings(folder: Path, tree: dict[Any, Any]) -> None:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=False), encoding="utf-8", errors="surrogatepass")
    settings_or_lines(path)


@cases(40)
@given(changed((ROOT / "params.yaml").read_bytes()))
def test_changed_text_of_settings(folder: Path, data: bytes) -> None:
    path = folder / "params.yaml"
    path.write_bytes(data)
    settings_or_lines(path)


ROWS = [{"text": f'This is film {number}, "quoted" é', "label": number % 2} for number in range(12)]


def written(ending: str) -> bytes:
    """Return the bytes of a file with the rows, in the format of a file ending."""
    table = pd.DataFrame(ROWS)
    lines = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    if ending == "parquet":
        stream = pa.BufferOutputStream()
        pyarrow.parquet.write_table(pa.table(dict(table)), stream)
        return bytes(stream.getvalue())
    return {
        "jsonl": lines,
        "json": json.dumps(ROWS, indent=1).encode(),
        "csv": table.to_csv(index=False).encode(),
        "tsv": table.to_csv(index=False, sep="\t").encode(),
        "txt": "\n".join(table["text"]).encode(),
        "jsonl.gz": gzip.compress(lines, mtime=0),
        "csv.zst": bytes(pa.compress(table.to_csv(index=False).encode(), "zstd", asbytes=True)),
    }[ending]


WANTED = (*PREFERENCES, "labelled", "plain")
WRITTEN = {ending: written(ending) for ending in ("jsonl", "json", "csv", "tsv", "txt", "parquet", "jsonl.gz", "csv.zst")}


@st.composite
def damaged_file(draw: st.DrawFn) -> tuple[str, bytes]:
    """Return a file ending and the damaged bytes of a file. The ending can belong to another format."""
    ending = draw(st.sampled_from(list(WRITTEN)))
    name = draw(st.sampled_from([ending] * 7 + ["jsonl", "parquet", "csv.gz", "tsv", "txt.zst"]))
    return name, draw(changed(WRITTEN[ending]))


@cases(40)
@given(damaged_file())
def test_damaged_data_files(folder: Path, file: tuple[str, bytes]) -> None:
    name, data = file
    path = folder / f"train.{name}"
    path.write_bytes(data)
    params = Params.model_validate(tiny_params()).data
    rows_or_line(lambda: Intake(files_at(str(path), "data.source"), WANTED, params, "data.source", 4, 0.5))


@cases(30)
@given(changed_tree(ROWS))
def test_changed_values_of_rows(folder: Path, rows: list[Any]) -> None:
    path = folder / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    params = Params.model_validate(tiny_params()).data
    rows_or_line(lambda: Intake(files_at(str(path), "data.source"), WANTED, params, "data.source", 4, 0.5))


ANSWERS = [{"prompt": "The", "sample": 0, "response": "film", "tokens": [1, 2]}] * 3
FIGURES = {"temperature": 1.0, "cut_words": 20}
READ: dict[str, tuple[Any, Callable[[Path], object]]] = {
    "answers.jsonl": (ANSWERS, lambda path: read_rows(path, {"prompt": str, "sample": int, "tokens": list})),
    "prompts.jsonl": (ANSWERS, read_prompts),
    "prompts.txt": ("The film was\nI saw\n", read_prompts),
    "metrics.json": (FIGURES, lambda path: read_json(path, {"temperature": float, "cut_words": int})),
    "curve.csv": ("step,loss\n1,0.5\n2,nan\n", lambda path: read_table(path, ["step", "loss"])),
}


def text_of(tree: Any) -> bytes:
    """Return the bytes of a text unchanged, of a list as JSON lines, or of an object as JSON."""
    lines = [tree] if isinstance(tree, str) else map(json.dumps, tree if isinstance(tree, list) else [tree])
    return "\n".join(lines).encode()


@cases(40)
@given(st.data())
def test_damaged_files_of_stages(folder: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(list(READ)))
    tree, read = READ[name]
    if not isinstance(tree, str) and data.draw(st.booleans()):
        damaged = text_of(data.draw(changed_tree(tree)))
    else:
        damaged = data.draw(changed(text_of(tree)))
    (folder / name).write_bytes(damaged)
    rows_or_line(lambda: read(folder / name))


@pytest.mark.parametrize("text", ["[" * 100_000, f'{{"prompt": {"1" * 5000}}}'], ids=["nest", "number"])
@pytest.mark.parametrize("name", ["answers.jsonl", "prompts.jsonl", "metrics.json"])
def test_deeply_nested_json_or_a_huge_number_gives_an_error_of_one_line(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(StageError) as error:
        READ[name][1](folder / name)
    assert_names(error.value, name, "JSON")
    tame(str(error.value))


@pytest.fixture(scope="module")
def judge(folder: Path) -> Path:
    from rlhf_sentiment.evaluation.classifier import Judge

    texts = [f"a {word} film" for word in ("good", "bad") for _ in range(5)]
    Judge.train(texts, np.array([1] * 5 + [0] * 5), ngrams=1, min_count=1, strength=1.0).save(folder / "judge")
    return folder / "judge"


@cases(20)
@given(st.data())
def test_a_damaged_judge(judge: Path, data: st.DataObject) -> None:
    from rlhf_sentiment.evaluation.classifier import Judge

    name = data.draw(st.sampled_from(["judge.json", "judge.safetensors"]))
    whole = (judge / name).read_bytes()
    tree = name == "judge.json" and data.draw(st.booleans())
    damaged = text_of(data.draw(changed_tree(json.loads(whole)))) if tree else data.draw(changed(whole))
    with tempfile.TemporaryDirectory() as copied:
        shutil.copytree(judge, copied, dirs_exist_ok=True)
        (Path(copied) / name).write_bytes(damaged)
        rows_or_line(lambda: Judge.load(copied).positive(["a good film", ""]))


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    write_llama(folder / "model")
    return folder / "model"


@cases(20)
@given(st.data())
def test_a_damaged_model(model: Path, data: st.DataObject) -> None:
    from rlhf_sentiment.models.loading import load_policy, load_tokenizer

    name = data.draw(st.sampled_from(["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]))
    with tempfile.TemporaryDirectory() as copied:
        shutil.copytree(model, copied, dirs_exist_ok=True)
        (Path(copied) / name).write_bytes(data.draw(changed((model / name).read_bytes(), longest=8)))
        rows_or_line(lambda: (load_policy(copied), load_tokenizer(copied)))
