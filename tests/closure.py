"""The modules that a stage imports, read from its source."""

import ast
import json
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
STAGES = ROOT / "stages"
PACKAGE = STAGES / "rlhf_sentiment"


def imports(file: Path) -> set[Path]:
    """Return the modules of this project that `file` itself imports. Imports under `if TYPE_CHECKING` do not count."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    skipped = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found: set[Path] = set()
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.ImportFrom):
            if node.level:
                folder = file.parents[node.level - 1]
            elif (node.module or "").split(".")[0] == "rlhf_sentiment":
                folder = STAGES
            else:
                continue
            target = folder.joinpath(*(node.module or "").split(".")) if node.module else folder
            found |= {path for path in [target.with_suffix(".py")] if path.is_file()}
            found |= {path for alias in node.names if (path := target / f"{alias.name}.py").is_file()}
        elif isinstance(node, ast.Import):
            for alias in node.names:
                path = STAGES.joinpath(*alias.name.split(".")).with_suffix(".py")
                found |= {path} if path.is_file() else set()
    return found


def closure(file: Path) -> set[Path]:
    """Return `file` and all modules of this project that it imports, directly or not.

    The `__init__.py` of packages are left out, because they run nothing.
    """
    seen: set[Path] = set()
    waiting = [file]
    while waiting:
        one = waiting.pop()
        if one not in seen:
            seen.add(one)
            waiting += imports(one)
    return seen


def pipeline() -> dict[str, Any]:
    """Return the stages of dvc.yaml by name, with each `foreach` written out as DVC does it."""
    stages: dict[str, Any] = {}
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        if "foreach" not in stage:
            stages[name] = stage
            continue
        for key, item in stage["foreach"].items():
            text = json.dumps(stage["do"]).replace("${key}", key)
            for field, value in item.items():
                text = text.replace(f"${{item.{field}}}", value)
            stages[f"{name}@{key}"] = json.loads(text)
    return stages
