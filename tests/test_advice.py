"""Messages never advise users to delete files that the pipeline cannot make again."""

import ast
import re
from pathlib import Path

import pytest

from rlhf_sentiment.engine.messages import is_made, made, mend_of

from .closure import ROOT, STAGES, pipeline

DELETE = re.compile(r"\b(delet(e|ing)|remov(e|ing)|eras(e|ing)|discard|throw|rm)\b", re.IGNORECASE)


def texts(file: Path) -> list[tuple[str, str]]:
    """Return each string of a module that is not a docstring, with the name of its function."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = []

    def look(node: ast.AST, function: str) -> None:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            function = node.name
        for child in ast.iter_child_nodes(node):
            docstring = isinstance(node, ast.Expr) and isinstance(child, ast.Constant)
            if isinstance(child, ast.Constant) and isinstance(child.value, str) and not docstring:
                found.append((function, child.value))
            look(child, function)

    look(tree, "")
    return found


def test_only_one_function_advises_to_delete() -> None:
    advice = {
        (file.relative_to(STAGES).as_posix(), function)
        for file in STAGES.rglob("*.py")
        for function, text in texts(file)
        if DELETE.search(text)
    }
    assert advice == {("rlhf_sentiment/engine/messages.py", "mend_of")}


def test_paths_that_may_be_deleted_are_outs_of_the_pipeline() -> None:
    written = {
        entry if isinstance(entry, str) else next(iter(entry))
        for stage in pipeline().values()
        for kind in ("outs", "metrics", "plots")
        for entry in stage.get(kind, [])
    }
    assert all(is_made(out) for out in written)
    for path in map(str, made()):
        assert any(out == path or out.startswith(f"{path}/") for out in written), path


@pytest.mark.parametrize(
    "path", ["models/sft", "models/sft/config.json", "data/prepared/sft.jsonl", "data/samples/new.jsonl", ROOT / "models/judge"]
)
def test_paths_of_the_pipeline_may_be_deleted(path: str | Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert mend_of(path) == "delete it and run `dvc repro`"


@pytest.mark.parametrize(
    "path",
    ["models/pretrained/mine", "data/raw/mine/train.csv", "prompts/one.txt", "models/mine", "models/sft/../pretrained/mine"]
    + ["my_policy", "/models/sft", "models/sft2", "distilbert/distilgpt2", "models", "."],
)
def test_paths_of_users_may_not_be_deleted(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert "delete" not in mend_of(path)
