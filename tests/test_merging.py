"""The merge of dvc.lock: exact small files, random pipelines, git itself, and branches of the tiny world."""

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dvc.utils.serialize import dumps_yaml, modify_yaml, parse_yaml_for_update
from hypothesis import given, settings
from hypothesis import strategies as st

import mend
from rlhf_sentiment.engine.errors import StageError

from .conftest import FUZZ, ROOT, World, assert_names, the_error

sys.path.insert(0, str(ROOT / "tools"))
from merge_lock import merge, merge_entries

Lock = dict[str, dict[str, Any]]


def entry(reads: dict[str, str], writes: dict[str, str], cmd: str = "python x.py", **params: object) -> dict[str, Any]:
    """Return an entry that read and wrote files with these hashes."""
    body: dict[str, Any] = {"cmd": cmd}
    for kind, files in (("deps", reads), ("outs", writes)):
        body[kind] = [{"path": path, "hash": "md5", "md5": f"{digest:0<32}", "size": 7} for path, digest in files.items()]
    return body | ({"params": {"params.yaml": params}} if params else {})


def lock(entries: Lock) -> bytes:
    """Return dvc.lock as DVC writes it."""
    return dumps_yaml({"schema": "2.0", "stages": entries}).encode()


def merged(base: Lock, ours: Lock, theirs: Lock) -> tuple[Lock, list[str]]:
    """Merge, and merge the other way round. Both give the same entries."""
    (kept, removed), (again, also) = merge_entries(base, ours, theirs), merge_entries(base, theirs, ours)
    assert kept == again
    assert set(removed) == set(also)
    return kept, removed


# A chain with a branch: sft -> reward -> ppo, and judge. evaluate reads ppo and judge.
SFT = entry({"data": "d0"}, {"models/sft": "s0"})
REWARD = entry({"models/sft": "s0"}, {"models/reward": "r0"})
PPO = entry({"models/sft": "s0", "models/reward": "r0"}, {"models/ppo": "p0"})
JUDGE = entry({"data": "d0"}, {"models/judge": "j0"}, cut=34)
EVALUATE = entry({"models/ppo": "p0", "models/judge": "j0"}, {"report": "e0"})
BASE: Lock = {"sft": SFT, "reward": REWARD, "ppo": PPO, "judge": JUDGE, "evaluate": EVALUATE}

REWARD_1 = entry({"models/sft": "s0"}, {"models/reward": "r1"}, lr=1)
PPO_1 = entry({"models/sft": "s0", "models/reward": "r1"}, {"models/ppo": "p1"})
PPO_2 = entry({"models/sft": "s0", "models/reward": "r0"}, {"models/ppo": "p2"}, steps=9)
JUDGE_1 = entry({"data": "d0"}, {"models/judge": "j1"}, cut=20)
JUDGE_2 = entry({"data": "d0"}, {"models/judge": "j2"}, cut=50)
JUDGE_SAME_1, JUDGE_SAME_2 = (entry({"data": "d0"}, {"models/judge": "j0"}, cut=cut) for cut in (33, 35))
EVALUATE_1 = entry({"models/ppo": "p1", "models/judge": "j0"}, {"report": "e1"})
EVALUATE_2 = entry({"models/ppo": "p0", "models/judge": "j2"}, {"report": "e2"})
EVALUATE_3 = entry({"models/ppo": "p0", "models/judge": "j0"}, {"report": "e3"}, resamples=99)
DPO = entry({"models/sft": "s0"}, {"models/dpo": "o1"})
FOLDER = entry({"models": "m0"}, {"sizes": "z0"})
INSIDE = entry({"models/sft/config.json": "c0"}, {"layers": "l0"})
SFT_1 = entry({"data": "d0"}, {"models/sft": "s1"}, epochs=2)


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "kept", "removed"),
    [
        pytest.param(
            BASE,
            BASE | {"reward": REWARD_1, "ppo": PPO_1, "evaluate": EVALUATE_1},
            BASE | {"judge": JUDGE_2, "evaluate": EVALUATE_2},
            {"sft": SFT, "reward": REWARD_1, "ppo": PPO_1, "judge": JUDGE_2},
            ["evaluate"],
            id="different stages: the common end is removed",
        ),
        pytest.param(
            BASE,
            BASE | {"reward": REWARD_1},
            BASE | {"judge": JUDGE_2},
            {"sft": SFT, "reward": REWARD_1, "judge": JUDGE_2},
            ["ppo", "evaluate"],
            id="the stages after a change that were not run are removed",
        ),
        pytest.param(
            BASE,
            BASE | {"reward": REWARD_1, "ppo": PPO_1, "evaluate": EVALUATE_1},
            BASE | {"ppo": PPO_2},
            {"sft": SFT, "reward": REWARD_1, "judge": JUDGE},
            ["ppo", "evaluate"],
            id="the same stage: it and the stages after it are removed",
        ),
        pytest.param(
            BASE,
            BASE | {"judge": JUDGE_1},
            BASE | {"judge": JUDGE_2},
            {"sft": SFT, "reward": REWARD, "ppo": PPO},
            ["judge", "evaluate"],
            id="the same stage: an unchanged stage after it is removed",
        ),
        pytest.param(
            BASE,
            BASE | {"judge": JUDGE_SAME_1},
            BASE | {"judge": JUDGE_SAME_2, "evaluate": EVALUATE_3},
            {"sft": SFT, "reward": REWARD, "ppo": PPO, "evaluate": EVALUATE_3},
            ["judge"],
            id="the same stage with the same output: the stages after it stay",
        ),
        pytest.param(
            BASE,
            BASE | {"judge": JUDGE_2, "evaluate": EVALUATE_2},
            BASE | {"judge": JUDGE_2, "evaluate": EVALUATE_2, "sft": SFT | {"cmd": "python y.py"}},
            BASE | {"judge": JUDGE_2, "evaluate": EVALUATE_2, "sft": SFT | {"cmd": "python y.py"}},
            [],
            id="the same change on both sides is kept",
        ),
        pytest.param(
            BASE,
            {name: one for name, one in BASE.items() if name != "evaluate"},
            BASE | {"reward": REWARD_1, "ppo": PPO_1},
            {"sft": SFT, "reward": REWARD_1, "ppo": PPO_1, "judge": JUDGE},
            [],
            id="an entry that one side deleted stays deleted",
        ),
        pytest.param(
            BASE,
            {name: one for name, one in BASE.items() if name != "ppo"},
            BASE | {"ppo": PPO_2},
            {"sft": SFT, "reward": REWARD, "judge": JUDGE},
            ["evaluate", "ppo"],
            id="deleted on one side and changed on the other: removed",
        ),
        pytest.param(
            BASE,
            BASE | {"dpo": DPO},
            BASE | {"judge": JUDGE_2, "evaluate": EVALUATE_2},
            BASE | {"dpo": DPO, "judge": JUDGE_2, "evaluate": EVALUATE_2},
            [],
            id="an entry that one side added is kept",
        ),
        pytest.param(
            BASE,
            BASE | {"dpo": DPO},
            BASE | {"dpo": DPO | {"cmd": "python y.py"}},
            BASE,
            ["dpo"],
            id="added on both sides with different contents: removed",
        ),
        pytest.param(
            BASE,
            BASE | {"dpo": DPO},
            BASE | {"sft": SFT_1},
            {"sft": SFT_1, "judge": JUDGE},
            ["reward", "ppo", "evaluate", "dpo"],
            id="an added entry that read what the other side changed is removed",
        ),
        pytest.param(
            {"sample@base": SFT, "evaluate": REWARD},
            {"sample@base": SFT, "sample@first": SFT | {"cmd": "python first.py"}, "evaluate": REWARD},
            {"sample@base": SFT, "evaluate": REWARD | {"cmd": "python y.py"}},
            {"sample@base": SFT, "sample@first": SFT | {"cmd": "python first.py"}, "evaluate": REWARD | {"cmd": "python y.py"}},
            [],
            id="a renamed item of a foreach: DVC leaves the old entry, which has the same output",
        ),
        pytest.param(
            {"sft": SFT, "sizes": FOLDER, "layers": INSIDE},
            {"sft": SFT_1, "sizes": FOLDER, "layers": INSIDE, "judge": JUDGE},
            {"sft": SFT, "sizes": FOLDER | {"cmd": "python y.py"}, "layers": INSIDE | {"cmd": "python y.py"}},
            {"sft": SFT_1, "judge": JUDGE},
            ["sizes", "layers"],
            id="an output below or above a dependency",
        ),
        pytest.param({}, {"sft": SFT, "judge": JUDGE}, {"sft": SFT_1, "judge": JUDGE}, {"judge": JUDGE}, ["sft"], id="no base"),
        pytest.param({"sft": SFT}, {"sft": SFT_1}, {"sft": SFT | {"cmd": "python y.py"}}, {}, ["sft"], id="nothing is left"),
        pytest.param(
            {"sft": SFT, "ppo": PPO},
            {"ppo": PPO},
            {"sft": SFT, "ppo": PPO, "judge": JUDGE},
            {"ppo": PPO, "judge": JUDGE},
            [],
            id="an entry that an earlier commit of a rebase removed stays removed, and the others stay",
        ),
        pytest.param(
            {"judge": JUDGE, "evaluate": EVALUATE},
            {"evaluate": EVALUATE},
            {"judge": JUDGE_SAME_1, "evaluate": EVALUATE},
            {"evaluate": EVALUATE},
            ["judge"],
            id="an entry that an earlier commit removed changes again, with the same output",
        ),
    ],
)
def test_entries_are_kept_as_one_side_has_them_or_removed(
    base: Lock, ours: Lock, theirs: Lock, kept: Lock, removed: list[str]
) -> None:
    assert merged(base, ours, theirs) == (kept, removed)
    result = merge(lock(base), lock(ours), lock(theirs))
    assert (yaml.safe_load(result.content)["stages"], result.removed) == (kept, removed)


LITERAL = """schema: '2.0'
stages:
  sft:
    cmd: python stages/sft.py
    deps:
    - path: data/prepared/sft.jsonl
      hash: md5
      md5: 0123456789abcdef0123456789abcdef
      size: 90
    params:
      params.yaml:
        sft:
          revision:
          learning_rate: 1e-05
          weight_decay: 0.0
          licence: '1'
          stop: []
    outs:
    - path: models/sft
      hash: md5
      md5: 0123456789abcdef0123456789abcdee.dir
      size: 1200
      nfiles: 3
  judge:
    cmd: python stages/judge.py
    outs:
    - path: models/judge
      hash: md5
      md5: 0123456789abcdef0123456789abcded.dir
      size: 12
      nfiles: 2
"""


def test_the_bytes_are_those_that_dvc_writes() -> None:
    """Numbers, nulls and quotes keep their form, and DVC's next write changes nothing."""
    ours, theirs = LITERAL.replace("1e-05", "2e-05"), LITERAL.replace("size: 12\n", "size: 13\n") + "  base:\n    cmd: x\n"
    both = LITERAL.replace("1e-05", "2e-05").replace("size: 12\n", "size: 13\n") + "  base:\n    cmd: x\n"
    assert merge(LITERAL.encode(), ours.encode(), theirs.encode()) == (both.encode(), [])
    assert dumps_yaml(parse_yaml_for_update(both, "dvc.lock")) == both


def test_a_change_of_one_side_keeps_its_bytes() -> None:
    """A person's comment also stays, which a new file would not have."""
    base, changed = lock(BASE), b"# by hand\n" + lock(BASE | {"sft": SFT_1})
    assert merge(base, changed, base) == merge(base, base, changed) == merge(base, changed, changed) == (changed, [])


def test_dvc_writes_blocks_after_a_merge_that_left_nothing(tmp_path: Path) -> None:
    path = tmp_path / "dvc.lock"
    path.write_bytes(merge(lock({"sft": SFT}), lock({"sft": SFT_1}), lock({"sft": SFT | {"cmd": "y"}})).content)
    with modify_yaml(str(path)) as data:  # as dvc.dvcfile.Lockfile.dump_stages does
        data["stages"].update({"sft": SFT})
    assert path.read_bytes() == lock({"sft": SFT})


def test_the_committed_lock_keeps_its_form() -> None:
    content = (ROOT / "dvc.lock").read_bytes()
    added = b"  %s:\n    cmd: x\n"
    assert merge(content, content + added % b"a", content + added % b"b").content == content + added % b"a" + added % b"b"


@pytest.mark.parametrize("side", ["base", "ours", "theirs"])
@pytest.mark.parametrize("content", [b"schema: [", b"schema: '3.0'\n", b"\xff", b"", LITERAL.encode() * 2])
def test_a_damaged_version_is_named(side: str, content: bytes) -> None:
    versions = {"base": lock(BASE), "ours": lock({"sft": SFT}), "theirs": lock({"judge": JUDGE})} | {side: content}
    if side == "base" and not content:  # both sides added the file
        assert merge(**versions).removed == []
    else:
        with pytest.raises(StageError, match=f"dvc.lock of {side} is damaged"):
            merge(**versions)


def test_datasets_that_both_sides_changed_are_refused() -> None:
    datasets = [b"datasets:\n- name: %d\n" % number for number in range(3)]
    stages = [lock(BASE | changes) for changes in ({}, {"sft": SFT_1}, {"judge": JUDGE_1})]
    with pytest.raises(StageError, match="datasets"):
        merge(*(one + two for one, two in zip(stages, datasets, strict=True)))
    kept = merge(stages[0] + datasets[0], stages[1] + datasets[0], stages[2] + datasets[1])
    assert yaml.safe_load(kept.content)["datasets"] == [{"name": 1}]


# A random pipeline: stage k reads some of the stages before it, and `code/k`. An output is a function of all that was read. It
# forgets some of it where `coarse` is set, as a stage does whose change makes no difference.
Graph = list[list[int]]
CASES = settings(max_examples=300 * FUZZ, derandomize=True, database=None, deadline=None)


def run(graph: Graph, code: list[int], coarse: list[bool], old: Lock, stages: set[int]) -> Lock:
    """Return the lock after `dvc repro` of some stages, which DVC runs in this order."""
    entries = dict(old)
    outs = {f"out/{k}": f"{entries[f's{k}']['outs'][0]['md5']}" for k in range(len(graph)) if f"s{k}" in entries}
    for k, before in enumerate(graph):
        if k in stages:
            reads = {f"code/{k}": f"{code[k]}"} | {f"out/{j}": outs[f"out/{j}"] for j in before}
            read = json.dumps(reads) if not coarse[k] else ""
            outs[f"out/{k}"] = hashlib.md5(f"{k} {read}".encode(), usedforsecurity=False).hexdigest()
            entries[f"s{k}"] = entry(reads, {f"out/{k}": outs[f"out/{k}"]})
    return entries


@st.composite
def histories(draw: st.DrawFn, partly: bool) -> tuple[Graph, list[bool], list[list[int]], list[Lock]]:
    """Draw a pipeline, the code of base, ours, theirs and their merge, and the locks of the first three.

    Args:
        partly: outputs may forget what was read, and each side may run some of its changed stages only, or remove an entry.
    """
    size = draw(st.integers(2, 7))
    graph = [sorted(draw(st.sets(st.integers(0, k - 1), max_size=3))) if k else [] for k in range(size)]
    coarse = [partly and draw(st.booleans()) for _ in range(size)]
    changes = [draw(st.dictionaries(st.integers(0, size - 1), st.integers(1, 2), max_size=3)) for _ in range(2)]
    codes = [[change.get(k, 0) for k in range(size)] for change in ({}, *changes)]
    twice = {k for k in range(size) if 0 != codes[1][k] != codes[2][k] != 0}
    codes.append([3 if k in twice else max(codes[1][k], codes[2][k]) for k in range(size)])
    everything = set(range(size))
    base = run(graph, codes[0], coarse, {}, everything)
    locks = [base]
    for code in codes[1:3]:
        stages = draw(st.sets(st.sampled_from(sorted(everything)))) if partly else everything
        changed = run(graph, code, coarse, base, stages)
        gone = draw(st.sets(st.sampled_from(sorted(base)), max_size=1)) if partly else set()
        locks.append({name: one for name, one in changed.items() if name not in gone})
    return graph, coarse, codes, locks


@CASES
@given(histories(partly=False))
def test_the_entries_kept_are_those_that_a_full_run_would_write(
    history: tuple[Graph, list[bool], list[list[int]], list[Lock]],
) -> None:
    """Both sides ran all. Of the entries that a run of the merge would write, the merged lock has all that a side has.

    An entry that both sides changed differently is left out, although a run may give the one of a side again.
    """
    graph, coarse, codes, (base, ours, theirs) = history
    result = run(graph, codes[3], coarse, {}, set(range(len(graph))))
    known = {
        name: one
        for name, one in result.items()
        if one in (ours[name], theirs[name]) and not base[name] != ours[name] != theirs[name] != base[name]
    }
    kept, removed = merged(base, ours, theirs)
    assert kept == known
    assert set(removed) == result.keys() - kept.keys()


@CASES
@given(histories(partly=True))
def test_a_kept_entry_has_run_and_read_what_the_other_entries_wrote(
    history: tuple[Graph, list[bool], list[list[int]], list[Lock]],
) -> None:
    _, _, _, (base, ours, theirs) = history
    kept, removed = merged(base, ours, theirs)
    assert kept.keys() | set(removed) <= ours.keys() | theirs.keys()
    assert not kept.keys() & set(removed)
    for name, one in kept.items():
        assert one in (ours.get(name), theirs.get(name))
        assert not base.get(name) != ours.get(name) != theirs.get(name) != base.get(name)
        for dep in one["deps"]:
            writer = dep["path"].replace("out/", "s")
            if writer in kept:
                assert dep["md5"] == kept[writer]["outs"][0]["md5"], (name, writer)
            elif writer in removed:
                sides = [lock.get(writer) or base[writer] for lock in (ours, theirs)]
                assert [dep["md5"]] * 2 == [side["outs"][0]["md5"] for side in sides], (name, writer)


WHO = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
OURS, THEIRS = BASE | {"judge": JUDGE_1, "evaluate": EVALUATE_1}, BASE | {"ppo": PPO_2, "evaluate": EVALUATE_2}
LEFT = {"sft": SFT, "reward": REWARD, "ppo": PPO_2, "judge": JUDGE_1}


class Clone(World):
    """A repository with a small pipeline. Two branches changed different stages, and the last stage after both."""

    def git(self, *arguments: str, status: int = 0) -> str:
        return self.run("git", *WHO, *arguments, status=status)

    def write(self, entries: Lock, figure: int, **files: str) -> None:
        """Write what a run writes, and other files."""
        (self / "dvc.lock").write_bytes(lock(entries))
        (self / "metrics/evaluation.json").write_text(f'{{"mean": {figure}}}\n')
        (self / "plots/samples.csv").write_text(f"prompt\nThe film {figure}\n")
        (self / "plots/comparison.png").write_bytes(b"\x89PNG\0" + bytes([figure]))
        for name, text in files.items():
            (self / name.replace("__", ".")).write_text(text)

    def unmerged(self) -> list[str]:
        return self.git("diff", "--name-only", "--diff-filter=U").splitlines()

    def entries(self) -> Lock:
        return yaml.safe_load((self / "dvc.lock").read_bytes())["stages"]


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """Make the repository. It is on the branch `ours`, and has no drivers yet."""
    clone = Clone(tmp_path / "my clone")  # git passes the driver to a shell
    for folder in ("tools", "stages/rlhf_sentiment/engine"):
        shutil.copytree(ROOT / folder, clone / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitattributes", "stages/rlhf_sentiment/__init__.py"):
        shutil.copy(ROOT / name, clone / name)
    for name in ("metrics", "plots"):
        (clone / name).mkdir()
    clone.run("git", "init", "-q", "-b", "main")
    clone.write(BASE, 0, params__yaml="seed: 1\n", dvc__yaml="stages: {}\n", README__md="0\n")
    clone.git("add", "-A")
    clone.git("commit", "-qm", "base")
    for branch, entries, figure in (("theirs", THEIRS, 2), ("ours", OURS, 1)):
        clone.git("checkout", "-q", "-b", branch, "main")
        clone.write(entries, figure)
        clone.git("commit", "-qam", branch)
    return clone


def install(world: World) -> None:
    world.run("python", "-c", "import sys; sys.path.insert(0, 'tools'); import merge_lock; merge_lock.install()")


def refused(clone: Clone) -> str:
    """Return the line in which `make resolve` says what is wrong."""
    return the_error("resolve", clone.run("python", "tools/resolve.py", status=1))


@pytest.mark.parametrize(
    "commands",
    [
        pytest.param(["merge theirs -m merged"], id="merge"),
        pytest.param(["checkout -q theirs", "rebase ours"], id="rebase"),
        pytest.param(["cherry-pick theirs"], id="cherry-pick"),
        pytest.param(["checkout -q theirs", "reset -q --soft main", "stash", "checkout -q ours", "stash pop"], id="stash"),
    ],
)
def test_git_merges_the_files_of_the_pipeline_alone(clone: Clone, commands: list[str]) -> None:
    install(clone)
    for command in commands:
        said = clone.git(*command.split())
    assert clone.unmerged() == []
    assert clone.entries() == LEFT
    assert (clone / "metrics/evaluation.json").read_text() == '{"mean": 1}\n'
    assert (clone / "plots/comparison.png").read_bytes()[-1] == 1
    (line,) = [line for line in said.splitlines() if "merge_lock: " in line]
    assert_names(line, "evaluate", "`make resolve`")


def test_resolve_does_the_same_without_the_driver(clone: Clone, monkeypatch: pytest.MonkeyPatch) -> None:
    said = clone.git("merge", "theirs", status=1)
    files = ["dvc.lock", "metrics/evaluation.json", "plots/comparison.png", "plots/samples.csv"]
    assert clone.unmerged() == files, said
    assert_names(said, "CONFLICT (content): Merge conflict in dvc.lock")
    monkeypatch.chdir(clone.folder)
    with pytest.raises(StageError, match="`make resolve`"):
        mend.mend_lock()  # the line of `make repro`
    said = clone.run("python", "tools/resolve.py")
    assert_names(said, "resolve: dvc.lock merged without evaluate, for `dvc repro` to run\n", "3 files")
    assert clone.unmerged() == []
    assert clone.entries() == LEFT
    assert (clone / "metrics/evaluation.json").read_text() == '{"mean": 1}\n'
    assert clone.git("diff", "--stat") == "", "all is in the index"
    assert clone.run("python", "tools/resolve.py") == "", "a second time, nothing is left"


@pytest.mark.parametrize("name", ["params.yaml", "dvc.yaml", "stages/rlhf_sentiment/engine/locks.py"])
@pytest.mark.parametrize("added", [False, True])
def test_resolve_refuses_what_a_person_must_merge(clone: Clone, name: str, added: bool) -> None:
    for branch, text in (("theirs", "a: 2\n"), ("ours", "a: 1\n")):
        clone.git("checkout", "-q", branch)
        (clone / name).write_text(text)
        clone.git("commit", "-qam", "settings")
    clone.git("merge", "theirs", status=1)
    if added:
        clone.git("add", name)
    before = (clone / "dvc.lock").read_bytes()
    assert_names(refused(clone), name, "conflict marks", "`make resolve`")
    assert (clone / "dvc.lock").read_bytes() == before
    (clone / name).write_text("a: 3\n")
    clone.run("python", "tools/resolve.py")
    assert clone.entries() == LEFT


def test_a_conflict_in_the_readme_can_wait(clone: Clone) -> None:
    """Its figures are those of the run that `make resolve` starts."""
    for branch in ("theirs", "ours"):
        clone.git("checkout", "-q", branch)
        (clone / "README.md").write_text(branch)
        clone.git("commit", "-qam", "readme")
    clone.git("merge", "theirs", status=1)
    clone.run("python", "tools/resolve.py")
    assert clone.unmerged() == ["README.md"]


@pytest.mark.parametrize("committed", [False, True])
def test_a_lock_that_was_added_with_its_marks_is_restored_as_the_line_says(clone: Clone, committed: bool) -> None:
    clone.git("merge", "theirs", status=1)
    clone.git("add", "-A")
    if committed:
        clone.git("commit", "-qm", "merged")
    assert_names(refused(clone), "dvc.lock", "`git checkout --merge dvc.lock`")
    clone.git("checkout", "--merge", "dvc.lock")
    clone.run("python", "tools/resolve.py")
    assert clone.entries() == LEFT


def test_a_clone_of_a_lock_with_marks_is_restored_as_the_line_says(clone: Clone) -> None:
    clone.git("merge", "theirs", status=1)
    clone.git("commit", "-qam", "merged")
    clone.git("clone", "-q", ".", "second")
    second = Clone(clone / "second")
    assert_names(refused(second), "dvc.lock", "`git checkout HEAD~1 dvc.lock`")
    second.git("checkout", "HEAD~1", "dvc.lock")
    assert second.run("python", "tools/resolve.py") == ""
    assert second.entries() == OURS


def test_a_damaged_side_leaves_the_conflict_to_a_person(clone: Clone) -> None:
    install(clone)
    clone.git("checkout", "-q", "theirs")
    with (clone / "dvc.lock").open("ab") as file:
        file.write(b"  sft: [\n")
    clone.git("commit", "-qam", "damaged")
    clone.git("checkout", "-q", "ours")
    said = clone.git("merge", "theirs", status=1)
    assert_names(the_error("merge_lock", said), "dvc.lock of theirs is damaged", "`make resolve`")
    assert clone.unmerged() == ["dvc.lock"]
    assert "<<<<<<< ours" in (clone / "dvc.lock").read_text()
    assert_names(refused(clone), "theirs", "git checkout --ours dvc.lock")
    clone.git("checkout", "--ours", "dvc.lock")
    clone.git("add", "dvc.lock")
    clone.run("python", "tools/resolve.py")
    assert clone.entries() == OURS


@pytest.mark.parametrize(("side", "whose"), [("ours", "our side"), ("theirs", "their side")])
@pytest.mark.parametrize(("command", "there"), [("add", True), ("rm", False)])
def test_a_lock_that_one_side_deleted_is_kept_or_deleted_as_the_line_says(
    clone: Clone, side: str, whose: str, command: str, there: bool
) -> None:
    install(clone)
    clone.git("checkout", "-q", side)
    clone.git("rm", "-q", "dvc.lock")
    clone.git("commit", "-qm", "no lock")
    clone.git("checkout", "-q", "ours")
    clone.git("merge", "theirs", status=1)
    assert_names(refused(clone), f"{whose} deleted dvc.lock", f"`git {command} dvc.lock`", "`make resolve`")
    clone.git(command, "dvc.lock")
    clone.run("python", "tools/resolve.py")
    assert clone.unmerged() == []
    assert (clone / "dvc.lock").exists() == there
    if there:
        assert clone.entries() == (THEIRS if side == "ours" else OURS)


@pytest.mark.parametrize("side", ["ours", "theirs"])
def test_a_plot_that_one_side_removed_and_the_other_changed(clone: Clone, side: str) -> None:
    install(clone)
    clone.git("checkout", "-q", side)
    clone.git("rm", "-q", "plots/samples.csv")
    clone.git("commit", "-qm", "no plot")
    clone.git("checkout", "-q", "ours")
    clone.git("merge", "theirs", status=1)
    assert clone.unmerged() == ["plots/samples.csv"]
    assert_names(clone.run("python", "tools/resolve.py"), " of 1 file in ")
    assert clone.unmerged() == []
    assert (clone / "plots/samples.csv").exists() == (side == "theirs")


def test_outside_git_nothing_is_installed(clone: Clone) -> None:
    shutil.rmtree(clone / ".git")
    install(clone)


def all_entries(world: World) -> set[str]:
    """Return every entry of every committed dvc.lock, as JSON. These are the runs that there were."""
    locks = (
        world.run("git", "show", f"{one}:dvc.lock") for one in world.run("git", "log", "--all", "--format=%H").split()[:-1]
    )
    return {json.dumps(one) for lock in locks for one in yaml.safe_load(lock)["stages"].values()}


def entries_of(world: World) -> Lock:
    return yaml.safe_load((world / "dvc.lock").read_bytes())["stages"]


def branch(world: World, name: str, *targets: str, **changes: object) -> None:
    """Change settings on a branch, run stages, and commit."""
    world.run("git", "checkout", "-q", "-b", name, "main")
    world.run("dvc", "checkout", "-q")
    for key, value in changes.items():
        world.set(key.replace("__", "."), value)
    world.run("dvc", "repro", *targets)
    world.commit(name)


def resolve(world: World, removed: list[str]) -> None:
    """Check the merged dvc.lock, and run `make resolve`. It runs the removed stages, and changes no other entry."""
    kept = entries_of(world)
    assert {json.dumps(one) for one in kept.values()} <= all_entries(world), "no entry names a run that never was"
    assert not kept.keys() & set(removed)
    assert json.loads(world.run("dvc", "status", "--json")).keys() >= set(removed)
    said = world.run("make", "-o", "setup", "resolve")
    assert sorted(world.stages_run(said)) == removed
    assert entries_of(world).items() >= kept.items()
    assert_names(said, " dvc.lock\n", " plots/")
    assert_names(world.run("dvc", "status"), "up to date")


def test_branches_that_changed_different_stages(world: World) -> None:
    install(world)
    branch(world, "resamples", evaluate__resamples=99)
    branch(world, "judge", "judge", judge__cut_words=20)
    said = world.run("git", *WHO, "merge", "resamples", "-m", "merged")
    assert_names(said, "merge_lock: dvc.lock merged without check, evaluate;")
    resolve(world, ["check", "evaluate"])


@pytest.mark.thorough
def test_branches_that_changed_the_same_stage(world: World) -> None:
    """Each ran all that it changed. The settings are in conflict too, so a person chooses a value before anything runs."""
    install(world)
    branch(world, "short", judge__cut_words=20)
    branch(world, "long", judge__cut_words=30, generation__temperature=0.9)
    said = world.run("git", *WHO, "merge", "short", status=1)
    assert_names(said, "merge_lock: dvc.lock merged without check, judge, evaluate;")
    assert world.run("git", "diff", "--name-only", "--diff-filter=U").split() == ["params.yaml"]
    assert_names(the_error("mend", world.run("python", "stages/mend.py", status=1)), "params.yaml", "`make resolve`")
    world.run("git", "checkout", "-q", "--ours", "params.yaml")
    world.set("judge.cut_words", 25)
    resolve(world, ["check", "evaluate", "judge"])
