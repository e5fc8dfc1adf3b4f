"""`make pull`, from a folder and from a server of S3 on this machine, and what it says if it cannot.

`make remotes` installs what the test of S3 needs. Without it, the test is skipped.
"""

import logging
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from dvc.exceptions import DvcException
from dvc.repo import Repo

from rlhf_sentiment.engine.errors import StageError

from .conftest import ROOT, World, assert_names, outs, the_error

sys.path.insert(0, str(ROOT / "tools"))
from pull import pull

KEYS = {"access_key_id": "key", "secret_access_key": "secret", "region": "us-east-1"}


@pytest.fixture(params=["folder", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[list[str]]]:
    """Start a storage. Return the commands that set it as the remote, and then those that set its credentials."""
    if request.param == "folder":
        yield [["add", "--default", "storage", str(tmp_path / "storage")]]
        return
    for package in ("dvc_s3", "moto", "flask"):
        if find_spec(package) is None:
            pytest.skip(f"`make remotes` installs {package}")
    import boto3
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    url = "http://{}:{}".format(*server.get_host_and_port())
    names = {"aws_access_key_id": "key", "aws_secret_access_key": "secret", "region_name": "us-east-1"}
    boto3.client("s3", endpoint_url=url, **names).create_bucket(Bucket="bucket")
    yield [
        ["add", "--default", "storage", "s3://bucket/rlhf-sentiment"],
        ["modify", "storage", "endpointurl", url],
        *(["modify", "--local", "storage", *pair] for pair in KEYS.items()),
    ]
    server.stop()


def test_a_clone_pulls_what_another_pushed(world: World, tmp_path: Path, storage: list[list[str]]) -> None:
    """After the pull, all outputs are those of the run, and DVC has nothing to do."""
    world.variables = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "", "AWS_SHARED_CREDENTIALS_FILE": ""}
    for command in storage:
        world.run("dvc", "remote", *command)
    world.run("dvc", "push")
    world.commit("a remote")
    world.run("git", "clone", "-q", ".", str(tmp_path / "clone"))
    clone = World(tmp_path / "clone", world.variables)
    if local := [command for command in storage if "--local" in command]:
        assert_names(the_error("pull", clone.run("python", "tools/pull.py", status=1)), "storage", "credentials")
        for command in local:
            clone.run("dvc", "remote", *command)
    assert_names(clone.run("python", "tools/pull.py"), "pull: ", "files fetched from the remote storage")
    made = ("data", "models", "reports", "metrics", "plots")
    assert outs(clone, *made) == outs(world, *made)
    assert_names(clone.run("dvc", "status"), "up to date")
    said = clone.run("dvc", "repro")
    assert clone.stages_run(said) == []
    assert "is cached" not in said
    assert clone.run("git", "status", "--short") == ""


PIPELINE = {
    "folder": {"cmd": "mkdir -p made && echo 1 > made/one && echo 2 > made/two", "outs": ["made"]},
    "file": {"cmd": "cat made/one > file", "deps": ["made"], "outs": ["file"]},
}


@pytest.fixture(scope="module")
def pushed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a repository of two stages, and the storage to which it has pushed."""
    folder = tmp_path_factory.mktemp("pushed")
    small = World(folder / "repository")
    small.folder.mkdir()
    small.run("git", "init", "-q")
    small.run("dvc", "init", "-q")
    (small / "dvc.yaml").write_text(yaml.safe_dump({"stages": PIPELINE}))
    small.run("dvc", "repro")
    small.run("dvc", "remote", "add", "--default", "storage", "../storage")
    small.run("dvc", "push")
    for name in ("made", ".dvc/cache", ".dvc/tmp"):
        shutil.rmtree(small / name)
    (small / "file").unlink()
    return folder


@pytest.fixture
def small(pushed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a copy of the repository as a clone has it, without outputs."""
    shutil.copytree(pushed, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path / "repository")
    return World(tmp_path / "repository")


def set_remote(small: World, config: str) -> None:
    (small / ".dvc/config").write_text(config)


def refused() -> str:
    """Return the error of a pull."""
    with Repo(".") as repo, pytest.raises((StageError, DvcException)) as refusal:
        pull(repo)
    return str(refusal.value)


def test_without_a_remote_one_line_says_what_to_do(small: World) -> None:
    set_remote(small, "")
    shutil.copytree(ROOT / "stages/rlhf_sentiment/engine", small / "stages/rlhf_sentiment/engine")
    shutil.copytree(ROOT / "tools", small / "tools")
    said = small.run("python", "tools/pull.py", status=1)
    assert said.count("\n") == 1
    assert_names(the_error("pull", said), "no remote is set", "`make repro`", "docs/remotes.md")
    set_remote(small, "[core]\n    remote = other\n")
    said = small.run("python", "tools/pull.py", status=1)
    assert said.count("\n") == 1
    assert_names(the_error("pull", said), "'other' doesn't exist")


def test_a_remote_of_one_person_counts(small: World) -> None:
    (small / ".dvc/config").rename(small / ".dvc/config.local")
    with Repo(".") as repo:
        assert pull(repo) == "3 files fetched from the remote storage"
        assert pull(repo) == "0 files fetched from the remote storage"
    assert (small / "file").read_text() == "1\n"


def test_a_remote_that_is_not_the_default_is_named(small: World) -> None:
    set_remote(small, "['remote \"spare\"']\n    url = ../../storage\n")
    assert_names(refused(), "dvc remote default spare")


@pytest.mark.parametrize(
    ("url", "package"), [("gs://b/x", "dvc-gs"), ("azure://b/x", "dvc-azure"), ("ssh://h/x", "dvc-ssh"), ("s3://b/x", "dvc-s3")]
)
def test_a_missing_package_is_named(small: World, monkeypatch: pytest.MonkeyPatch, url: str, package: str) -> None:
    set_remote(small, f"[core]\n    remote = storage\n['remote \"storage\"']\n    url = {url}\n")
    monkeypatch.setitem(sys.modules, package.replace("-", "_"), None)  # as if it were not installed
    install = "make remotes" if package == "dvc-s3" else f"pip install -c requirements.txt {package}"
    assert_names(refused(), "storage", package, install)


def test_a_folder_that_does_not_exist_is_named(small: World) -> None:
    """DVC takes each of its files for missing."""
    shutil.rmtree(small / "../storage")
    assert_names(refused(), "storage", "cannot be used", "storage does not exist")
    set_remote(small, "[core]\n    remote = storage\n['remote \"storage\"']\n    url = nonsense://\n")
    assert_names(refused(), "storage", "cannot be used", "its URL nonsense:// has no name")


@pytest.mark.parametrize(
    ("lost", "names"),
    [("*", ["2 of 2 outputs", "made", "file"]), ("[0-9a-f]*/*.dir", ["1 of 2 outputs", "made"]), ("26/*", ["2 files"])],
)
def test_what_a_remote_lacks_is_named(small: World, lost: str, names: list[str]) -> None:
    """The last case is a file of a folder: the hash of `two` begins with 26."""
    gone = list((small / "../storage/files/md5").glob(lost))
    assert gone
    for path in gone:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert_names(refused(), "storage", *names, "`dvc push`", "`make repro`")


def test_a_stage_without_an_entry_is_named_and_the_others_come(small: World) -> None:
    """Its output stays, although DVC takes an output without an entry for one to remove."""
    lock = yaml.safe_load((small / "dvc.lock").read_text())
    (small / "made").mkdir()
    (small / "made/one").write_text("of another run")
    del lock["stages"]["folder"]
    (small / "dvc.lock").write_text(yaml.safe_dump(lock))
    with Repo(".") as repo:
        assert_names(pull(repo), "1 file fetched", "made", "`make repro`")
    assert (small / "file").read_text() == "1\n"
    assert (small / "made/one").read_text() == "of another run"


@pytest.mark.parametrize("lock", [None, {"schema": "2.0", "stages": {}}])
def test_without_entries_nothing_is_removed(small: World, lock: dict[str, object] | None) -> None:
    with Repo(".") as repo:
        pull(repo)
    before = outs(small, "made")
    (small / "dvc.lock").unlink() if lock is None else (small / "dvc.lock").write_text(yaml.safe_dump(lock))
    assert_names(refused(), "dvc.lock", "`git checkout dvc.lock`", "`make repro`")
    assert outs(small, "made") == before
    assert (small / "file").read_text() == "1\n"


def test_a_changed_output_is_not_replaced(small: World) -> None:
    (small / "file").write_text("mine\n")
    shutil.copytree(ROOT / "stages/rlhf_sentiment/engine", small / "stages/rlhf_sentiment/engine")
    shutil.copytree(ROOT / "tools", small / "tools")
    line = the_error("pull", small.run("python", "tools/pull.py", status=1))
    assert_names(line, "unsaved files", "Move them elsewhere", str(small / "file"))
    assert "--force" not in line
    assert (small / "file").read_text() == "mine\n"


def test_dvc_takes_the_commands_of_the_manual(small: World) -> None:
    commands = re.findall("^    dvc (remote [^#\n]+)", (ROOT / "docs/remotes.md").read_text(), re.MULTILINE)
    assert len(commands) > 10
    for command in commands:
        if " add " in command:  # the next kind of remote
            set_remote(small, "")
            (small / ".dvc/config.local").unlink(missing_ok=True)
        small.run("dvc", *command.split())
