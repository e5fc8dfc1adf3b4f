"""Fetch the outputs that dvc.lock names from a remote. `make pull` runs this; docs/remotes.md says how to set a remote.

`dvc repro` then runs nothing, unless code, settings or data have changed since the run. `dvc pull` does the same. This command
says in one line why it fails.
"""

import argparse
import logging
import re
import sys
from pathlib import Path
from typing import Any

from dvc.exceptions import DownloadError, DvcException
from dvc.repo import Repo

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "stages"))
from rlhf_sentiment.engine.errors import StageError, first_line, one_line_errors  # noqa: E402
from rlhf_sentiment.engine.messages import listed  # noqa: E402

NAME = "pull"
MANUAL = "docs/remotes.md"
REPRO = "`make repro` makes the outputs here (3 to 5 minutes with the default settings)"
ELSE = f"`dvc push` sends them from where they were made, or {REPRO}"


def main() -> None:
    """Fetch the outputs, and print how many files came."""
    argparse.ArgumentParser(
        prog="python tools/pull.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    logging.disable(logging.ERROR)  # what dvc logs, the errors below say in one line
    with one_line_errors(NAME):
        try:
            with Repo(".") as repo:
                print(f"{NAME}: {pull(repo)}")
        except DvcException as error:
            said = str(error).replace("Use `--force` to force.", "Move them elsewhere, and run `make pull` again:")
            raise StageError(f"dvc: {' '.join(said.split())}") from None


def pull(repo: Repo) -> str:
    """Fetch what dvc.lock names, and return what happened. Outputs that dvc.lock does not have stay as they are.

    Raises:
        StageError: there is no remote, it cannot be used, or it lacks outputs; or dvc.lock names none.
        DvcException: DVC refuses, for example because it would replace a file that is not in its cache.
    """
    name = remote_of(repo.config)
    outs = [out for out in repo.index.outs if out.use_cache]
    recorded = [out for out in outs if out.hash_info]
    if not recorded:  # without targets, DVC would fetch nothing and remove every output
        raise StageError(f"dvc.lock is missing, or names no outputs; bring it back: `git checkout dvc.lock`, or {REPRO}")
    fetched = fetch(repo, name, [out.fs_path for out in recorded])
    if lacking := [out.def_path for out in recorded if out.status()]:
        raise StageError(f"the remote {name} lacks {len(lacking)} of {len(outs)} outputs: {listed(lacking)}; {ELSE}")
    never_run = [out.def_path for out in outs if not out.hash_info]
    rest = f"; dvc.lock does not have {listed(never_run)}, which `make repro` makes" if never_run else ""
    return f"{files(fetched)} fetched from the remote {name}{rest}"


def remote_of(config: dict[str, Any]) -> str:
    """Return the name of the default remote.

    Raises:
        StageError: there is none.
    """
    if name := config["core"].get("remote"):
        return name
    if remotes := config["remote"]:
        raise StageError(f"no remote is the default; choose one: dvc remote default {next(iter(remotes))}")
    raise StageError(f"no remote is set; {REPRO}, and {MANUAL} says how to add a remote")


def fetch(repo: Repo, name: str, paths: list[str]) -> int:
    """Fetch what a remote has of the outputs at `paths`, and return the number of files.

    Raises:
        StageError: the remote's package is missing, it does not answer, or it lacks a file of a folder.
        DvcException: as in `pull`.
    """
    try:
        remote = repo.cloud.get_remote_odb(name)
        folder = repo.config["remote"][name]["url"]
        if remote.fs.protocol == "local" and not Path(folder).is_dir():
            fault = f"its URL {folder} has no name" if folder.endswith("://") else f"the folder {folder} does not exist"
            raise StageError(f"the remote {name} cannot be used: {fault}")
        remote.fs.exists(remote.path)  # raises if no server answers; `pull` would take each file for missing
        return repo.pull(paths, allow_missing=True)["stats"]["fetched"]
    except DownloadError as error:
        raise StageError(f"the remote {name} lacks {files(error.amount)}; {ELSE}") from None
    except (DvcException, StageError):
        raise
    except ImportError as error:
        package = re.findall("'(.+?)'", str(error))[-1]
        install = "make remotes" if package == "dvc-s3" else f"python -m pip install -c requirements.txt {package}"
        raise StageError(f"the remote {name} needs the package {package}; install it: {install} ({MANUAL})") from None
    except Exception as error:  # each kind of storage has its own errors
        raise StageError(f"the remote {name} cannot be used: {first_line(error)}") from None


def files(number: int) -> str:
    """Return a number of files in words."""
    return "1 file" if number == 1 else f"{number} files"


if __name__ == "__main__":
    main()
