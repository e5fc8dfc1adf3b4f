"""The command `dvc`: check the keys of `dvc exp run -S`, and then run DVC.

DVC answers an unknown key with "append with +", which adds a key that no stage reads. It has no hook for its command line. So
`make setup` replaces the script `dvc` of the environment by one that runs this file. `python -m dvc` is DVC alone. Other
commands, other files of settings, and other repositories are left to DVC. So are values, which the stage `check` checks.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, NoReturn

STAGES = str(Path(__file__).resolve().parents[1] / "stages")
SETTINGS = "params.yaml"
# Mappings that are empty, or have names that the user chooses. DVC adds to them with `+`.
MAPPINGS = ("data.columns.", "data.labels.", "data.preference_values.")


class _LeftToDVC(Exception):  # noqa: N818 (no error: DVC says itself what is wrong with its options)
    """DVC refuses the options."""


class _Options(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise _LeftToDVC(message)


def asked(words: list[str]) -> tuple[list[str], Path]:
    """Return the values of -S of `dvc exp run`, and the folder in which it runs. No values for another command."""
    parser = _Options(add_help=False)
    parser.add_argument("--cd", type=Path, default=Path())
    parser.add_argument("-S", "--set-param", action="append", default=[])
    try:
        options, others = parser.parse_known_args(words)
    except _LeftToDVC:
        return [], Path()
    command = [word for word in others if not word.startswith("-")][:2]
    return (options.set_param if command in (["exp", "run"], ["experiments", "run"]) else []), options.cd


def faults(overrides: list[str], tree: dict[str, Any]) -> list[str]:
    """Return a line for each value of -S that sets params.yaml and names no setting.

    Args:
        overrides: values such as `ppo.steps=3`, `+data.columns.text=review` and `other.yaml:key=1`.
        tree: the content of params.yaml.
    """
    lines = []
    for override in overrides:
        before, equals, value = override.partition("=")
        file, _, name = (before if ":" in before else f"{SETTINGS}:{before}").partition(":")
        if file == SETTINGS and (fault := _fault(name, value if equals else None, tree)):
            lines.append(f"-S {before}: {fault}")
    return lines


def _fault(name: str, value: str | None, tree: dict[str, Any]) -> str:
    """Return what is wrong with a key and its kind of value, or an empty text. The key may begin with `+`, `++` or `~`."""
    key = name.lstrip("+~")
    if key.startswith(MAPPINGS):
        return ""
    try:
        now = _at(key, tree)
    except LookupError as error:
        return str(error)
    if name.startswith("~"):
        return f"params.yaml needs every key; write -S {key}=VALUE"
    if value is None:
        return f"has no value; write -S {name}=VALUE"
    if isinstance(now, dict) and f"{key}." not in MAPPINGS and not value.lstrip().startswith("{"):
        return f"is a section; set one of its keys, such as {key}.{next(iter(now))}"
    return ""


def _at(key: str, tree: dict[str, Any]) -> Any:
    """Return the value at a key such as ppo.steps.

    Raises:
        LookupError: there is none. The message has the project's hint.
    """
    inner: Any = tree
    parts = key.split(".")
    for depth, part in enumerate(parts):
        if not isinstance(inner, dict):
            raise LookupError(f"{'.'.join(parts[:depth])} is a value, not a section")
        if part not in inner:
            raise LookupError(f"unknown key; {_hint(key, tree)}")
        inner = inner[part]
    return inner


def _hint(key: str, tree: dict[str, Any]) -> str:
    from rlhf_sentiment.engine.hints import hint, keys_in  # takes 0.1 s, and only a wrong key needs it

    known = keys_in(tree)
    section, _, last = key.rpartition(".")
    return hint(key if section in known else last, "", known)


def check(words: list[str]) -> None:
    """Check the command line of dvc. Print a line for each fault, and exit with status 2."""
    overrides, folder = asked(words)
    folder = folder.resolve()
    root = next((above for above in (folder, *folder.parents) if (above / ".dvc").is_dir()), None)
    if not overrides or root is None or not (root / "stages/rlhf_sentiment").is_dir():
        return
    import yaml

    try:
        tree = yaml.load((root / SETTINGS).read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (is safe)
    except (OSError, UnicodeError, yaml.YAMLError):
        return  # the stage `check` says what is wrong with the file
    sys.path.insert(0, STAGES)
    lines = faults(overrides, tree) if isinstance(tree, dict) else []
    if folder != root and not lines and any(":" not in override.partition("=")[0] for override in overrides):
        lines = [f"-S sets {SETTINGS} of the current folder; run the command in {root}"]
    if lines:
        from rlhf_sentiment.engine.messages import tell

        for line in lines:
            tell("dvc exp run", line)
        sys.exit(2)
    sys.path.remove(STAGES)


def install() -> None:
    """Replace the script `dvc` of this environment by one that runs this file. Without an environment this does nothing."""
    script = Path(sys.prefix) / "bin/dvc"
    if sys.prefix == sys.base_prefix or not script.is_file():
        return
    # It begins as pip's own scripts with a long path do: the kernel takes no long first line, and no space in it.
    text = (
        f"""#!/bin/sh\n'''exec' "{sys.executable}" "$0" "$@"\n' '''\n"""
        "# Written by tools/install.py: check the keys of `dvc exp run -S`, and run DVC. `python -m dvc` is DVC alone.\n"
        f"import os\nimport runpy\n\ncheck = {__file__!r}\n"
        # Another commit may lack this file, and the clone may be deleted.
        "if os.path.isfile(check):\n    runpy.run_path(check, run_name='__main__')\n"
        "else:\n    runpy.run_module('dvc', run_name='__main__', alter_sys=True)\n"
    )
    aside = script.with_name("dvc.new")
    aside.write_text(text, encoding="utf-8")
    aside.chmod(0o755)
    aside.replace(script)


if __name__ == "__main__":
    check(sys.argv[1:])
    from dvc.cli import main

    sys.exit(main())
