"""The files around the code agree with each other and with the code."""

import ast
import re
import runpy
import tomllib
from collections import Counter
from pathlib import Path

import pytest
import yaml

from .closure import PACKAGE, ROOT, STAGES

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SUBPACKAGES = {folder.name for folder in PACKAGE.iterdir() if (folder / "__init__.py").is_file()}


def test_all_files_state_the_same_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    released = re.search(r"^## \[?(\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released
    assert citation["version"] == PROJECT["project"]["version"] == released[1]


@pytest.mark.parametrize("file", [*WORKFLOWS, ROOT / "CONTRIBUTING.md", ROOT / "README.md"], ids=lambda file: file.name)
def test_each_make_target_exists(file: Path) -> None:
    targets = re.findall(r"(?:run: |`|^    )make ([a-z-]+)", file.read_text(), re.MULTILINE)
    assert targets
    assert [target for target in targets if not re.search(rf"^{target}:", MAKEFILE, re.MULTILINE)] == []


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.name)
def test_workflows_only_call_make(file: Path) -> None:
    for job in yaml.safe_load(file.read_text())["jobs"].values():
        for step in job["steps"]:
            assert re.fullmatch(r"[\w/-]+@v\d+(\.\d+)*", step["uses"]) if "uses" in step else step["run"].startswith("make ")


def test_python_versions_agree() -> None:
    names = [f"3.{minor}" for minor in (11, 12, 13)]
    assert PROJECT["project"]["requires-python"] == ">=3.11,<3.14"
    assert "(3, 11) <= sys.version_info < (3, 14)" in MAKEFILE
    jobs = yaml.safe_load((ROOT / ".github/workflows/push.yml").read_text())["jobs"]
    assert jobs["quick"]["strategy"]["matrix"]["python"] == names
    assert f"{names[0]}, {names[1]} or {names[2]}" in CONTRIBUTING


def test_contributing_lists_every_subpackage_at_its_level() -> None:
    modules = {file.stem for file in PACKAGE.glob("[a-z]*.py")}
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", CONTRIBUTING, re.MULTILINE)
    assert {name for _, name in rows} == SUBPACKAGES | modules
    (contract,) = (one for one in PROJECT["tool"]["importlinter"]["contracts"] if one["type"] == "layers")
    levels = [set(layer.split(" | ")) for layer in reversed(contract["layers"])]
    assert [{name for level, name in rows if int(level) == number} for number in range(1, len(levels) + 1)] == levels


def test_every_subpackage_is_installed() -> None:
    packages = PROJECT["tool"]["setuptools"]["packages"]
    assert set(packages) == {"rlhf_sentiment"} | {f"rlhf_sentiment.{name}" for name in SUBPACKAGES}


def test_every_library_is_pinned_and_no_index_is_named() -> None:
    asked = re.findall(r"^([\w.-]+)", (ROOT / "requirements.in").read_text(), re.MULTILINE)
    pins = (ROOT / "requirements.txt").read_text()
    pinned = set(re.findall(r"^([\w.-]+)==[\d.a-z]+$", pins, re.MULTILINE))
    assert [name for name in asked if name.lower().replace("_", "-").replace(".", "-") not in pinned] == []
    assert "://" not in pins
    assert "--" not in "".join(line for line in pins.splitlines() if not line.startswith("#"))


def test_files_that_contributing_names_exist() -> None:
    example = {"stages/lengths.py", "metrics/lengths.json"}
    named = set(re.findall(r"`((?:stages|tests|settings|lint|profiles)/[\w./]+)`", CONTRIBUTING)) - example
    assert [name for name in named if not (ROOT / name).exists() and not (PACKAGE / name).exists()] == []


def test_the_vocabulary_is_checked_in_prose_only(tmp_path: Path) -> None:
    prose = runpy.run_path(str(ROOT / "lint/vocabulary.py"))["prose"]
    (tmp_path / "a.py").write_text('"""Doc\nscissors."""\nname = "scissors"  # pupil\n\n\ndef luck():\n    "A `told` anew."\n')
    assert prose(tmp_path / "a.py").split("\n") == ['"""Doc', 'scissors."""', "pupil", "", "", "", '"A  anew."', ""]
    (tmp_path / "a.md").write_text("One `told`.\n\n    make luck\n\n```\nluck\n```\nTwo.\n")
    assert prose(tmp_path / "a.md").split("\n") == ["One .", "", "", "", "", "", "", "Two.", ""]


def test_the_vocabulary_is_checked_in_messages() -> None:
    messages = runpy.run_path(str(ROOT / "lint/vocabulary.py"))["messages"]
    source = """'A docstring.'
name = 'word'
fail(
    f'{a} was {b} anew, '
    'run `told it`'
)
say('by luck')  # a pupil"""
    assert messages(source).split("\n") == ["", "", "", "{} was {} anew, run ; ", "", "", "by luck; "]


def test_no_two_modules_share_a_name() -> None:
    """A stage and its section of params.yaml share a name, because they mean the same. No other module repeats one."""
    names = Counter(file.stem for file in PACKAGE.rglob("*.py") if file.stem != "__init__" and file.parent.name != "settings")
    assert [name for name, count in names.items() if count > 1] == []
    stages = {file.stem for file in STAGES.glob("*.py")}
    assert stages & names.keys() == {"compare"}, "evaluation/compare.py is what stages/compare.py shows"
    sections = {file.stem for file in (PACKAGE / "settings").glob("*.py")} - {"__init__"}
    assert sections & names.keys() == set()


def test_functions_and_modules_are_short() -> None:
    long = []
    for file in STAGES.rglob("*.py"):
        source = file.read_text()
        long += [file.name] if source.count("\n") > 300 else []
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno >= 60:
                long.append(f"{file.name}: {node.name}")
    assert long == []
