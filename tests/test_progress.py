"""Progress: bars in a terminal, lines in a log, and the live tables of the training stages."""

import os
import pty
import re
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import tqdm.auto
import tqdm.std
import yaml

from rlhf_sentiment.api.pipeline import _run
from rlhf_sentiment.engine import progress
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.progress import LiveTable, live_tables, progress_bar
from rlhf_sentiment.training.checkpoints import Checkpoints

from .conftest import ROOT, RunStage, World, assert_names

Lines = Callable[[], list[str]]


class Clock:
    """A clock that a test moves. It is in place of `time.time` in tqdm."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    fake = Clock()
    monkeypatch.setattr(tqdm.std, "time", fake)
    return fake


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Lines:
    """Return a function that returns the lines on stderr since its last call. Nothing is on stdout."""

    def read() -> list[str]:
        said = capsys.readouterr()
        assert said.out == ""
        assert "\r" not in said.err
        return said.err.splitlines()

    return read


def take_steps(clock: Clock, count: int, seconds: float, **options: Any) -> None:
    """Take `count` steps of some seconds each. The loss of step n is n / 100."""
    with progress_bar(desc="sft", unit=" steps", **options) as bar:
        for _ in range(count):
            clock.now += seconds
            bar.set_postfix({"loss": f"{(bar.n + 1) / 100:.2f}"}, refresh=False)
            bar.update()


def test_a_line_follows_each_twentieth_of_the_steps(clock: Clock, lines: Lines) -> None:
    take_steps(clock, 200, 2.0, total=200)
    said = lines()
    assert len(said) == 20
    assert said[0] == "sft: 10 of 200 steps, loss 0.10, 00:20 passed, 06:20 left"
    assert said[2] == "sft: 30 of 200 steps, loss 0.30, 01:00 passed, 05:40 left"
    assert said[-1] == "sft: 200 of 200 steps, loss 2.00, 06:40 passed, 00:00 left"


def test_a_line_follows_30_seconds_where_a_twentieth_takes_longer(clock: Clock, lines: Lines) -> None:
    take_steps(clock, 7, 12.0, total=1000)
    assert lines() == [
        "sft: 3 of 1000 steps, loss 0.03, 00:36 passed, 3:19:24 left",
        "sft: 6 of 1000 steps, loss 0.06, 01:12 passed, 3:18:48 left",
    ]


def test_a_step_longer_than_30_seconds_has_a_line(clock: Clock, lines: Lines) -> None:
    take_steps(clock, 3, 50.0, total=1000)
    assert [line.split(",")[0] for line in lines()] == [f"sft: {step} of 1000 steps" for step in (1, 2, 3)]


@pytest.mark.parametrize(("steps", "count"), [(39, 0), (40, 1), (79, 1), (80, 2), (400, 10)])
def test_fast_steps_have_a_line_every_5_seconds(clock: Clock, lines: Lines, steps: int, count: int) -> None:
    """40 steps take 5 seconds. A twentieth of 400 steps takes 2.5 seconds."""
    take_steps(clock, steps, 0.125, total=400)
    assert len(lines()) == count


def test_short_work_prints_nothing(clock: Clock, lines: Lines) -> None:
    take_steps(clock, 4, 1.2, total=4)
    for _ in progress_bar(["base", "sft", "rlhf"], desc="evaluate: costs", unit=" models", leave=False):
        clock.now += 1.5
    assert lines() == []


def test_a_resumed_run_tells_the_time_left_from_its_own_speed(clock: Clock, lines: Lines) -> None:
    take_steps(clock, 10, 6.0, total=200, initial=150)
    assert lines() == [
        "sft: 155 of 200 steps, loss 1.55, 00:30 passed, 04:30 left",
        "sft: 160 of 200 steps, loss 1.60, 01:00 passed, 04:00 left",
    ]


def test_a_resumed_run_does_not_count_the_steps_before(clock: Clock, lines: Lines) -> None:
    take_steps(clock, 5, 1.0, total=200, initial=150)
    assert lines() == []


def test_work_of_unknown_length_has_a_line_every_30_seconds(clock: Clock, lines: Lines) -> None:
    for _ in progress_bar(iter(range(70)), desc="prepare: reviews", unit=" texts"):
        clock.now += 1.0
    assert lines() == ["prepare: reviews: 30 texts, 00:30 passed", "prepare: reviews: 60 texts, 01:00 passed"]


def test_lines_over_a_sequence_over_bytes_and_over_a_strange_name(clock: Clock, lines: Lines) -> None:
    for _ in progress_bar(["base", "sft", "rlhf"], desc="evaluate: costs", unit=" models", leave=False):
        clock.now += 8.0
    assert lines()[0] == "evaluate: costs: 1 of 3 models, 00:08 passed, 00:16 left"
    with progress_bar(total=4_000_000, desc="prepare: a\x1b[2J\n.csv", unit="B", unit_scale=True) as bar:
        clock.now += 10.0
        bar.update(1_000_000)
    assert lines() == ["prepare: a\\x1b[2J\\n.csv: 1.00M of 4.00MB, 00:10 passed, 00:30 left"]


def test_a_message_in_between_leaves_the_lines_as_they_are(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar(total=10, desc="ppo", unit=" steps") as bar:
        clock.now += 10.0
        bar.update()
        bar.write("ppo: stops at step 1")
    said = capsys.readouterr()
    assert said.out == "ppo: stops at step 1\n"
    assert said.err == "ppo: 1 of 10 steps, 00:10 passed, 01:30 left\n"


def test_a_hidden_bar_and_a_disabled_one_print_nothing(clock: Clock, lines: Lines) -> None:
    take_steps(clock, 100, 10.0, total=100, shown=False)
    take_steps(clock, 100, 10.0, total=100, disable=True)  # as with TQDM_DISABLE=1
    assert lines() == []


def test_a_notebook_and_what_it_shows_have_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not isinstance(progress_bar(total=2), tqdm.auto.tqdm)
    monkeypatch.setenv(progress.WATCHED, "1")
    assert isinstance(progress_bar(total=2), tqdm.auto.tqdm)
    monkeypatch.delenv(progress.WATCHED)
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    assert isinstance(progress_bar(total=2), tqdm.auto.tqdm)


PROGRAM = f"""
import sys, time
sys.path.insert(0, {str(ROOT / "stages")!r})
from rlhf_sentiment.api.pipeline import _run
from rlhf_sentiment.engine import progress
from rlhf_sentiment.engine.errors import StageError
progress._SHORTEST = 0.1  # instead of 5 seconds
for _ in progress.progress_bar(range(25), desc="ppo", unit=" steps"):
    time.sleep(0.05)
"""


def test_a_terminal_has_a_bar_and_a_pipe_has_lines() -> None:
    piped = subprocess.run([sys.executable, "-c", PROGRAM], stderr=subprocess.PIPE, text=True, check=True).stderr
    assert piped
    for line in piped.splitlines():
        assert re.fullmatch(r"ppo: \d+ of 25 steps, \d\d:\d\d passed, \d\d:\d\d left", line), piped
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stderr=theirs) as process:
        os.close(theirs)
        with suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # Linux gives an error at the end
            shown = b""
            while read := terminal.read(1 << 16):
                shown += read
    assert process.returncode == 0
    assert b"passed" not in shown
    assert shown.count(b"\rppo: ") > 2
    assert b"100%|" in shown
    assert b"25/25" in shown


def test_a_log_that_cannot_be_written_does_not_stop_the_work(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    with open("/dev/full", "w", encoding="utf-8", buffering=1) as full, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", full)
        take_steps(clock, 100, 10.0, total=100)
        with pytest.raises(OSError, match="No space"):
            full.close()


def test_a_line_of_progress_is_not_taken_for_an_error() -> None:
    said = ["ppo: no space left", "ppo: 60 of 200 steps, loss 0.50, 00:30 passed, 01:10 left"]
    with pytest.raises(StageError, match=r"failed: ppo: no space left$"):
        _run("python", "-c", f"print({said[0]!r}); print({said[1]!r}); exit(1)")


ROWS = [{"step": 1, "loss": 0.123456789, "accuracy": 0.5}, {"step": 2, "loss": 1e-05, "accuracy": float("nan")}]
TEXT = "step,loss,accuracy\n1,0.12346,0.5\n2,1e-05,nan\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a new current folder, in no experiment of DVC."""
    monkeypatch.chdir(tmp_path)
    for name in ("DVC_ROOT", "DVC_EXP_NAME"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_a_live_table_grows_and_begins_anew(folder: Path) -> None:
    table = folder / "runs/sft/live.csv"
    with live_tables():
        live = LiveTable("sft", [])
        assert table.read_text() == ""
        live.add(ROWS[0])
        assert table.read_text() == TEXT[: TEXT.index("2,1e")]
        live.add(ROWS[1])
        assert table.read_text() == TEXT
        LiveTable("sft", ROWS[:1]).add(ROWS[1] | {"loss": 7.0})
        assert table.read_text() == TEXT.replace("1e-05", "7.0")


def test_only_a_stage_has_a_live_table(folder: Path) -> None:
    LiveTable("ppo", ROWS).add(ROWS[0])
    assert list(folder.iterdir()) == []


def test_each_experiment_has_its_own_live_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An experiment in the workspace replaces the workspace's table. Those in copies write to the main repository."""
    monkeypatch.setenv("DVC_ROOT", str(folder))
    (folder / "copy").mkdir()
    with live_tables():
        for place, name in ((".", "warm-film"), ("copy", "dull-plot"), (".", "fine-cast")):
            monkeypatch.setenv("DVC_EXP_NAME", name)
            monkeypatch.chdir(place)
            LiveTable("ppo", ROWS[:1])
    found = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.csv"))]
    assert found == ["runs/ppo/dull-plot/live.csv", "runs/ppo/fine-cast/live.csv", "runs/ppo/live.csv"]


@pytest.mark.parametrize("fault", ["full", "file"])
def test_a_live_table_that_cannot_be_written_gives_one_warning(folder: Path, lines: Lines, fault: str) -> None:
    if fault == "full":
        (folder / "runs/ppo").mkdir(parents=True)
        (folder / "runs/ppo/live.csv").symlink_to("/dev/full")
    else:
        (folder / "runs").write_text("")
    with live_tables():
        live = LiveTable("ppo", [])
        live.add(ROWS[0])
        live.add(ROWS[1])
    (warning,) = lines()
    why = "No space left on device" if fault == "full" else "Not a directory"
    assert warning == f"ppo: warning: runs/ppo/live.csv gets no more rows: {why}"


class Killed(BaseException):
    """An exception that no code of this project may catch."""


@pytest.mark.parametrize("stage", ["base", "sft", "reward", "ppo"])
def test_the_live_table_of_a_stage_grows_and_goes_on_after_a_kill(
    world: World, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """With so few steps, each point of a plot is a step. So the live table is the plot, without dtype."""
    table, plot, write = world / f"runs/{stage}/live.csv", world / f"plots/{stage}.csv", Checkpoints.writing
    whole = table.read_bytes()
    if stage != "base":  # which has no plot
        assert whole == plot.read_bytes().replace(b",dtype\n", b"\n").replace(b",float32\n", b"\n")
    grown: list[int] = []

    @contextmanager
    def killed(self: Checkpoints, step: int) -> Iterator[Path]:
        with write(self, step) as folder:
            yield folder
        grown.append(len(table.read_text().splitlines()) - 1)
        if len(grown) == 2:
            raise Killed

    yaml.safe_dump({"stages": {}}, (world / "dvc.lock").open("w"))  # it records nothing, and so no checkpoint is removed
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "writing", killed)
        with pytest.raises(Killed):
            run_stage(world, stage)
    assert grown == ([4, 8] if stage == "base" else [1, 2])
    with table.open("a") as file:
        file.write("9,0.5\n")  # of a step after the checkpoint
    assert_names(run_stage(world, stage).out, f"{stage}: goes on from its checkpoint")
    assert table.read_bytes() == whole


@pytest.mark.thorough
def test_the_log_of_a_queued_experiment_shows_progress_while_it_runs(world: World) -> None:
    settings = ("-S", "ppo.steps=1000", "-S", "checkpoint_every.ppo=100")
    world.run("dvc", "exp", "run", "--queue", "-n", "warm-film", *settings, "ppo")
    # The worker would keep a pipe open until the queue is empty.
    quiet: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    subprocess.run(["dvc", "queue", "start"], cwd=world.folder, env=world.environment(), check=True, **quiet)
    table, end = world / "runs/ppo/warm-film/live.csv", time.monotonic() + 200
    log = ""
    while " passed, " not in log and time.monotonic() < end:
        time.sleep(0.5)
        log = world.run("dvc", "queue", "logs", "warm-film") if table.is_file() else ""
    assert re.search(r"^ppo: \d+ of 1000 steps, reward .*, score .*, KL .*, 00:\d\d passed, \d\d:\d\d left$", log, re.MULTILINE)
    assert "Running" in world.run("dvc", "queue", "status")
    rows = len(table.read_text().splitlines()) - 1
    assert 0 < rows < 1000
    world.run("dvc", "queue", "kill", "warm-film")
    world.run("dvc", "queue", "stop")
