"""`mend` treats as damaged exactly the files that DVC refuses, for every kind of damage."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from dvc.repo import Repo

import mend

from .conftest import FUZZ, ROOT, assert_names, the_error

WHOLE = yaml.safe_dump(
    {
        "schema": "2.0",
        "stages": {
            name: {
                "cmd": f"python stages/{name}.py",
                "deps": [{"path": f"stages/{name}.py", "hash": "md5", "md5": f"{number:032x}", "size": 1200 + number}],
                "params": {"params.yaml": {"seed": 1, f"{name}.lr": 0.5}},
                "outs": [{"path": f"models/{name}", "hash": "md5", "md5": f"{number:032x}.dir", "size": 90, "nfiles": 3}],
            }
            for number, name in enumerate(("base", "sft", "reward"))
        },
    },
    sort_keys=False,
).encode()
VALUES = [
    b"[",
    b"{",
    b"null",
    b"!!int ''",
    b"!!bool x",
    b"!!timestamp x",
    b"2001-99-99",
    b"[1, 2]",
    b"*a",
    b"&a [*a]",
    b"[" * 3000,
]
MARKS = [b"\t", b"%", b"@", b"- ", b"? ", b"\r", b"\xff", b": ", b"\n", b"\0", b"#", b"--- ", b"!", b"\xe2\x80"]


def damaged(rng: random.Random) -> bytes:
    """Return dvc.lock with damage as from a kill, a disk, an editor or a merge by hand."""
    size, lines = len(WHOLE), WHOLE.split(b"\n")
    start, line, other = rng.randrange(size), rng.randrange(len(lines) - 1), rng.randrange(len(lines) - 1)
    end, key = min(size, start + rng.randrange(1, 300)), lines[line].split(b":")[0]
    head, tail = WHOLE[:start], WHOLE[start:]
    stage = WHOLE[WHOLE.index(b"  sft:") : WHOLE.index(b"  reward:")]
    ways: list[Callable[[], bytes]] = [
        lambda: head,
        lambda: head + bytes([tail[0] ^ 1 << rng.randrange(8)]) + tail[1:],
        lambda: head + b"\0" * (end - start) + WHOLE[end:],
        lambda: head + WHOLE[end:],
        lambda: head + rng.randbytes(4) + tail,
        lambda: head + rng.choice(MARKS) + tail,
        lambda: WHOLE + tail,
        lambda: WHOLE + stage,  # a stage that appears twice
        lambda: b"\n".join(lines[:line] + lines[line + 1 :]),
        lambda: b"\n".join(lines[:line] + [lines[other]] + lines[line:]),
        lambda: b"\n".join(lines[:line] + [key + b": " + rng.choice(VALUES)] + lines[line + 1 :]),
        lambda: rng.choice([b"", b"[]", b"3", b"null", b"\n" * 9, b"schema: 2.0", b"schema: '2.0'\nstages:", b"[" * 100_000]),
    ]
    return rng.choice(ways)()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a repository with a committed, undamaged dvc.lock."""
    for name in (".dvc/config", ".dvc/.gitignore"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    stages = {name: {"cmd": f"python stages/{name}.py", "outs": [f"models/{name}"]} for name in ("base", "sft", "reward")}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    (tmp_path / "dvc.lock").write_bytes(WHOLE)
    monkeypatch.chdir(tmp_path)
    who = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "whole"]):
        subprocess.run(["git", *command], check=True)
    return tmp_path


def dvc_can_read() -> bool:
    try:
        with Repo(".") as repo:
            assert len(repo.index.stages) == 3
    except AssertionError:
        raise
    except Exception:
        return False
    return True


def test_mend_restores_exactly_the_locks_that_dvc_refuses(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(17)
    verdicts = []
    for number in range(120 * FUZZ):
        content = damaged(rng)
        (repository / "dvc.lock").write_bytes(content)
        verdicts.append(dvc_can_read())
        mend.main()
        assert (repository / "dvc.lock").read_bytes() == (content if verdicts[-1] else WHOLE), (number, content)
    assert 10 < sum(verdicts) < len(verdicts) - 10, "some damage leaves a file that DVC can read, and some does not"
    said = capsys.readouterr().out.splitlines()
    assert len(said) == verdicts.count(False)
    for line in said:
        assert_names(line, "mend: ", "dvc.lock", "damaged", "restored from git")


def test_a_lock_that_was_committed_damaged_is_renamed(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (repository / "dvc.lock").write_bytes(WHOLE + WHOLE)
    subprocess.run(["git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qam", "twice"], check=True)
    (repository / "dvc.lock").write_bytes(b"schema: [")
    mend.main()
    assert_names(capsys.readouterr().out, "mend: ", "dvc.lock ", "damaged", "dvc.lock.cut")
    assert not (repository / "dvc.lock").exists()
    assert (repository / "dvc.lock.cut").read_bytes() == b"schema: ["
    assert [path.name for path in repository.glob(".dvc.lock*")] == []


@pytest.mark.parametrize("name", ["dvc.lock", ".dvc/tmp/rwlock"])
def test_a_file_that_cannot_be_opened_is_one_clear_line(
    repository: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (repository / name).unlink(missing_ok=True)
    (repository / name).mkdir(parents=True)
    with pytest.raises(SystemExit) as stopped:
        mend.main()
    assert stopped.value.code == 1
    assert_names(the_error("mend", capsys.readouterr().err), name, "directory")


@pytest.mark.parametrize("name", ["params.yaml", "dvc.yaml", "dvc.lock"])
def test_the_marks_of_a_merge_are_one_line_that_names_the_command(
    repository: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    content = b"<<<<<<< HEAD\na: 1\n=======\na: 2\n>>>>>>> other\n"
    (repository / name).write_bytes(content)
    with pytest.raises(SystemExit) as stopped:
        mend.main()
    assert stopped.value.code == 1
    assert_names(the_error("mend", capsys.readouterr().err), name, "merge conflicts", "`make resolve`")
    assert (repository / name).read_bytes() == content


INFO = {"pid": 2**22 + 1, "cmd": "dvc repro"}


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (json.dumps({"read": {"/a": [INFO]}, "write": {"/b": INFO}}), True),
        ("{}", True),
        (json.dumps({"write": {"/": INFO | {"pid": 10**23}}}), False),
        (json.dumps({"write": {"/": INFO | {"pid": -1}}}), True),
        ('{"read"', False),
        ("", False),
        ("[]", False),
        ("null", False),
        ("3", False),
        ('{"read": []}', False),
        ('{"write": {"/b": []}}', False),
        ('{"write": {"/b": {"pid": "12", "cmd": "dvc"}}}', False),
        ('{"read": {"/a": {"pid": 12, "cmd": "dvc"}}}', False),
        ('{"read": {}, "more": {}}', False),
        ("[" * 100_000, False),
        ("\0" * 40, False),
    ],
)
def test_an_rwlock_that_dvc_refuses_is_removed(
    repository: Path, capsys: pytest.CaptureFixture[str], content: str, whole: bool
) -> None:
    rwlock = repository / ".dvc/tmp/rwlock"
    rwlock.parent.mkdir()
    rwlock.write_text(content)
    try:
        with Repo(".") as repo:
            repo.reproduce(dry=True, targets=["base"])
        refused = False
    except Exception:
        refused = True
    assert refused == (not whole)
    rwlock.write_text(content)
    mend.main()
    assert rwlock.exists() == whole
    assert ("rwlock was damaged" in capsys.readouterr().out) == (not whole)
