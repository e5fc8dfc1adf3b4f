"""Report a stage to the trackers of `report_to`, in addition to its own metrics and plots.

The runs of one `dvc repro`, or of one experiment, stand in one project and one group. A stage opens its run when it has its
first figure. At its end it reports its outs: figures, tables, samples and pictures. No tracker changes an out. A tracker that
fails gets no more reports, and the stage continues.
"""

import io
import json
import os
import posixpath
import re
import subprocess
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict

from . import trackers
from .dvc_state import writer_of
from .errors import first_line
from .inputs import repository
from .messages import one_line, warn
from .params import load
from .records import Row
from .trackers import Named, ReportTo

_ROWS = 100  # of a table, at most


class _Reporting(BaseModel):
    """The setting that decides where a stage reports."""

    model_config = ConfigDict(frozen=True)
    report_to: ReportTo = []


class _Reports:
    """The open trackers of one stage."""

    def __init__(self, run: Named, names: Sequence[str], config: Row) -> None:
        self.run, self.config = run, config
        self.waiting, self.opened = list(names), dict[str, Any]()

    def open(self) -> None:
        """Open the run in each tracker, and print where it is."""
        waiting, self.waiting = self.waiting, []
        for name in waiting:
            if (fault := trackers.fault_of(name)) is not None:
                warn(self.run.stage, f"nothing is reported: {fault}")
                continue
            with self.guarded(name):
                self.opened[name] = trackers.open_run(name, self.run, self.config)
                address = trackers.address_of(name, self.opened[name], self.run)
                said = one_line(f"{self.run.stage}: reports to {name}: {_short(address)}")
            if name in self.opened:
                print(said, flush=True)

    def each(self, report: Callable[[str, Any], None]) -> None:
        """Call `report` with each tracker that works, and its name."""
        self.open()
        for name, opened in list(self.opened.items()):
            with self.guarded(name):
                report(name, opened)

    @contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """Turn any error of a tracker into a warning, and report no more to this tracker. Its own messages are not shown."""
        try:
            with redirect_stdout(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except Exception as error:  # each library has its own errors
            self.opened.pop(name, None)
            warn(self.run.stage, f"{name} fails, and gets no more reports of this stage: {first_line(error)}")


_reports: _Reports | None = None


@contextmanager
def reporting(stage: str, params: Path, settings: BaseModel, writes: Sequence[str]) -> Iterator[None]:
    """Report what happens inside the block to the trackers that `report_to` names.

    Args:
        stage: the stage's name.
        params: the params file, which has `report_to`.
        settings: the run's settings, which trackers show as its config.
        writes: the stage's outputs.
    """
    global _reports
    names = load(_Reporting, params).report_to
    if names and os.environ.get("RANK", "0") == "0":  # the first of several processes
        run = _named(stage, writes)
        about = {"stage": stage, "commit": _commit(), "experiment": os.environ.get("DVC_EXP_NAME", ""), "group": run.group}
        _reports = _Reports(run, names, about | dict(_flat(settings.model_dump(mode="json"), ".")))
    try:
        yield
    finally:
        if _reports is not None:
            reports, _reports = _reports, None
            reports.waiting = []  # a stage that had nothing to report opens no run
            reports.each(trackers.close_run)


def begin() -> None:
    """Open the run now, so that its address does not stand inside a progress bar."""
    if _reports is not None:
        _use_accelerate()
        _reports.open()


def log(figures: Row, step: int | None = None) -> None:
    """Report figures by name, such as `train/loss`. Values that are no numbers are left out."""
    numbers = {_clean(name): value for name, value in figures.items() if isinstance(value, int | float)}
    if _reports is not None and numbers:
        begin()
        _reports.each(lambda _, opened: opened.log(numbers, step=step))


def log_table(name: str, rows: Sequence[Mapping[Any, Any]]) -> None:
    """Report the first hundred rows of a table."""
    if _reports is not None and rows:
        import pandas as pd

        begin()
        plain = [{key: value for key, value in row.items() if not isinstance(value, list | dict)} for row in rows[:_ROWS]]
        table = pd.DataFrame(plain)
        _reports.each(lambda tracker, opened: trackers.log_table(tracker, opened, f"tables/{name}", table))


def log_outs(writes: Sequence[str]) -> None:
    """Report the figures, tables, samples and pictures in a stage's outputs. Models are not reported."""
    for path in map(Path, writes) if _reports is not None else ():
        if path.suffix == ".json" and path.parent.name == "metrics":
            figures = json.loads(path.read_text(encoding="utf-8"))
            log({f"{path.stem}/{key}": value for key, value in _flat(figures, "/")})
        elif path.suffix == ".csv":
            import pandas as pd

            log_table(path.stem, pd.read_csv(path, nrows=_ROWS).to_dict("records"))
        elif path.suffix == ".jsonl":
            with open(path, encoding="utf-8") as file:
                log_table(path.stem, [json.loads(line) for line in islice(file, _ROWS)])
        elif path.suffix == ".png":
            _log_picture(path)


def _log_picture(path: Path) -> None:
    if _reports is not None:
        begin()
        _reports.each(lambda tracker, opened: trackers.log_picture(tracker, opened, f"pictures/{path.stem}", path))


def _use_accelerate() -> None:
    """Make the state of accelerate where the stage has none. Its trackers log through the state."""
    from accelerate import PartialState

    if not PartialState._shared_state:
        PartialState(cpu=True)


def _named(stage: str, writes: Sequence[str]) -> Named:
    """Return the names of a run. Stages of one dvc share a group, which is the experiment's name where there is one."""
    experiment, commit = os.environ.get("DVC_EXP_NAME"), _commit()
    dvc = writer_of(writes[0]) if writes and "DVC_STAGE" in os.environ else None
    try:
        started = psutil.Process(dvc).create_time()
    except psutil.Error:  # this dvc has died
        started = time.time()
    group = experiment or f"{commit}-{time.strftime('%Y%m%d-%H%M%S', time.localtime(started))}"
    name = "-".join(filter(None, (stage, commit, experiment)))
    return Named(stage, group, name, (repository() / "runs").resolve())


def _commit() -> str:
    """Return the short hash of the commit that the run begins from."""
    if baseline := os.environ.get("DVC_EXP_BASELINE_REV"):  # an experiment's own commit is DVC's, and no branch has it
        return baseline[:7]
    try:
        command = ["git", "rev-parse", "--short=7", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 (no user's text)
    except (OSError, subprocess.CalledProcessError):
        return "no-commit"


def _short(address: str) -> str:
    """Return a path relative to the current folder, if it is in there."""
    path = Path(address)
    return str(path.relative_to(Path.cwd())) if path.is_absolute() and path.is_relative_to(Path.cwd()) else address


def _flat(tree: Row, separator: str, above: str = "") -> Iterator[tuple[str, str | int | float]]:
    """Return the values of a nested mapping with the names of their keys joined, as all trackers take them."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _flat(value, separator, f"{above}{key}{separator}")
        else:
            yield above + key, value if isinstance(value, str | int | float) else str(value)


def _clean(name: str) -> str:
    """Return a figure's name with only the characters that every tracker takes. MLflow takes the fewest."""
    return posixpath.normpath(re.sub(r"[^\w\-. /]", "_", name, flags=re.ASCII)).lstrip("/.")
