"""Trackers: what a stage reports, where, and what happens if a tracker is absent or fails.

`make trackers` installs the packages. Without a package, its tests are skipped. `pytest -m "" tests/test_tracking.py` runs all.
"""

import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from rlhf_sentiment import RLHFConfig
from rlhf_sentiment.api.config import write_params
from rlhf_sentiment.engine import trackers, tracking
from rlhf_sentiment.engine.errors import ConfigError
from rlhf_sentiment.engine.params import Settings, load
from rlhf_sentiment.engine.trackers import fault_of

from .conftest import ROOT, RunStage, World, assert_names, outs, the_error, tiny_params

NAMES = ("tensorboard", "wandb", "mlflow", "trackio")
PACKAGES = {"mlflow": ("mlflow", "sqlalchemy", "alembic")}
LOSSES = [2.5, 1.25]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Unset the variables of trackers, and forget those that a test or a tracker sets."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith(("WANDB_", "MLFLOW_", "TRACKIO_", "DVC_", "RANK"))]:
        del os.environ[name]
    yield
    os.environ.clear()
    os.environ.update(before)


class Section(Settings):
    steps: int
    note: str | None


class Some(Settings):
    seed: int
    ppo: Section


SETTINGS = Some(seed=3, ppo=Section(steps=2, note=None))
WRITES = ["metrics/some.json", "plots/bars.csv", "data/samples/some.jsonl", "plots/some.png"]


def report(folder: Path, report_to: Any, repository: Path | None = None) -> None:
    """Report a stage `some` with two losses, and outs of each kind."""
    for sub in ("metrics", "plots", "data/samples"):
        (folder / sub).mkdir(parents=True, exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump({"report_to": report_to}))
    (folder / WRITES[0]).write_text(json.dumps({"rlhf": {"kl: (a)": 0.75}, "words": "none", "empty": None}))
    (folder / WRITES[1]).write_text("model,value\nbase,0.5\nrlhf,0.75\n")
    (folder / WRITES[2]).write_text(json.dumps({"prompt": "The film", "response": " was | warm.", "tokens": [1, 2]}) + "\n")
    Image.new("RGB", (6, 4), "red").save(folder / WRITES[3])
    if repository is not None:
        os.environ["DVC_ROOT"] = str(repository)
    before = Path.cwd()
    os.chdir(folder)
    try:
        with tracking.reporting("some", Path("params.yaml"), SETTINGS, WRITES):
            for step, loss in enumerate(LOSSES, start=1):
                tracking.log({"train/loss": loss, "train/text": "x"}, step)
            tracking.log_table("evaluation", [{"model": "rlhf", "mean_positive": 0.75}])
            tracking.log_outs(WRITES)
    finally:
        os.chdir(before)


def read_tensorboard(runs: Path) -> dict[str, Any]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (path for path in (runs / "tensorboard").glob("*/*") if path.is_dir())
    events = EventAccumulator(str(folder)).Reload()
    tags = events.Tags()
    tables = {name.removesuffix("/text_summary"): events.Tensors(name)[0].tensor_proto for name in tags["tensors"]}
    (settings,) = folder.rglob("hparams.yml")
    return {
        "name": folder.name,
        "group": folder.parent.name,
        "config": yaml.safe_load(settings.read_text()),
        "loss": [(event.step, event.value) for event in events.Scalars("train/loss")],
        "figures": {name: events.Scalars(name)[-1].value for name in tags["scalars"]},
        "tables": {name: text.string_val[0].decode() for name, text in tables.items()},
        "pictures": {name: (one.width, one.height) for name in tags["images"] for one in events.Images(name)},
    }


def records(file: Path) -> Iterator[Any]:
    """Return the records of a W&B file. It is a log of LevelDB: blocks of 32 KiB, with parts of a checksum, length and kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # padding
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def read_wandb(runs: Path) -> dict[str, Any]:
    (folder,) = (runs / "wandb").glob("offline-run-*")
    (file,) = folder.glob("*.wandb")
    history: list[dict[str, Any]] = []
    found: dict[str, Any] = {"config": {}}
    written: list[Any] = []
    for _ in range(100):  # W&B writes the end of the file a moment after the run has ended
        written = list(records(file))
        if written and written[-1].WhichOneof("record_type") == "exit":
            break
        time.sleep(0.1)
    for record in written:
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"name": record.run.display_name, "group": record.run.run_group, "project": record.run.project}
        if kind in ("run", "config"):
            update = record.run.config.update if kind == "run" else record.config.update
            found["config"] |= {one.key or "/".join(one.nested_key): json.loads(one.value_json) for one in update}
        if kind == "history":
            history.append({})
            for one in record.history.item:
                inner, (*above, last) = history[-1], [one.key] if one.key else one.nested_key
                for key in above:
                    inner = inner.setdefault(key, {})
                inner[last] = json.loads(one.value_json)
    media = {path.relative_to(folder / "files/media").parts[0]: path for path in folder.glob("files/media/**/*.*")}
    assert media.keys() == {"images", "table"}
    merged = {key: value for row in history for key, value in row.items()}
    found["loss"] = [(row["_step"], row["train/loss"]) for row in history if "train/loss" in row]
    found["figures"] = {key: value for key, value in merged.items() if isinstance(value, int | float)}
    tables = {key: value for key, value in merged.items() if isinstance(value, dict) and value["_type"] == "table-file"}
    found["tables"] = {key: (folder / "files" / value["path"]).read_text() for key, value in tables.items()}
    picture = merged["pictures/some"]
    found["pictures"] = {"pictures/some": (picture["width"], picture["height"])}
    return found


def read_mlflow(runs: Path) -> dict[str, Any]:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{runs}/mlflow/mlflow.db")
    experiment = client.get_experiment_by_name("rlhf-sentiment")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    folder = runs / "mlflow/artifacts" / run.info.run_id / "artifacts"
    with Image.open(folder / "pictures/some.png") as picture:
        size = picture.size
    return {
        "name": run.info.run_name,
        "group": run.data.tags["group"],
        "project": experiment.name,
        "config": run.data.params,
        "loss": [(one.step, one.value) for one in client.get_metric_history(run.info.run_id, "train/loss")],
        "figures": run.data.metrics,
        "tables": {f"tables/{path.stem}": path.read_text() for path in (folder / "tables").iterdir()},
        "pictures": {"pictures/some": size},
    }


def read_trackio(runs: Path) -> dict[str, Any]:
    import trackio
    from trackio.sqlite_storage import SQLiteStorage

    (run,) = trackio.Api().runs("rlhf-sentiment")
    rows = SQLiteStorage.get_logs(run.project, run.name)
    merged = {key: value for row in rows for key, value in row.items()}
    (picture,) = (runs / "trackio/media").rglob("*.png")
    with Image.open(picture) as opened:
        size = opened.size
    return {
        "name": run.name,
        "group": run.config["_Group"],
        "project": run.project,
        "config": run.config,
        "loss": [(row["step"], row["train/loss"]) for row in rows if "train/loss" in row],
        "figures": {key: value for key, value in merged.items() if isinstance(value, int | float)},
        "tables": {key: json.dumps(value) for key, value in merged.items() if key.startswith("tables/")},
        "pictures": {"pictures/some": size},
    }


READ: dict[str, Callable[[Path], dict[str, Any]]] = {
    "tensorboard": read_tensorboard,
    "wandb": read_wandb,
    "mlflow": read_mlflow,
    "trackio": read_trackio,
}


@pytest.mark.parametrize("tracker", NAMES)
def test_a_tracker_has_what_was_reported(tracker: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An experiment in a copy reports to the main repository. Each tracker is read with its own library."""
    for package in PACKAGES.get(tracker, (tracker,)):
        if find_spec(package) is None:  # trackio reads its variables when it is imported
            pytest.skip(f"`make trackers` installs {package}")
    os.environ |= {"WANDB_MODE": "offline", "DVC_EXP_NAME": "warm-film", "DVC_EXP_BASELINE_REV": "0123456789abcdef"}
    copy, main = tmp_path / "copy", tmp_path / "main"
    report(copy, tracker, repository=main)
    assert not (copy / "runs").exists()
    said = capsys.readouterr()
    assert "warning" not in said.err
    (line,) = [line for line in said.out.splitlines() if line.startswith("some: ")]
    assert_names(line, tracker, str(main / "runs"))
    found = READ[tracker](main / "runs")
    assert found["name"] == "some-0123456-warm-film"
    assert found["group"] == "warm-film"
    assert found.get("project", "rlhf-sentiment") == "rlhf-sentiment"
    config = {key: str(value) for key, value in found["config"].items()}
    expected = {"seed": "3", "ppo.steps": "2", "ppo.note": "None", "stage": "some"}
    expected |= {"commit": "0123456", "experiment": "warm-film"}
    assert expected.items() <= config.items()
    assert found["loss"] == list(enumerate(LOSSES, start=1))
    assert found["figures"]["some/rlhf/kl_ _a_"] == 0.75
    assert found["tables"].keys() == {"tables/evaluation", "tables/bars", "tables/some"}
    assert_names(found["tables"]["tables/evaluation"], "model", "positive", "rlhf", "0.75")
    assert_names(found["tables"]["tables/some"], "warm")
    assert found["pictures"] == {"pictures/some": (6, 4)}


def test_runs_of_one_commit_share_a_group(tmp_path: Path) -> None:
    os.chdir(ROOT)
    one, other = (tracking._named(stage, []) for stage in ("sft", "sample@rlhf"))
    assert one.group == other.group
    commit = re.fullmatch(r"([0-9a-f]{7}|no-commit)-\d{8}-\d{6}", one.group)
    assert commit
    assert (one.name, other.name) == (f"sft-{commit[1]}", f"sample@rlhf-{commit[1]}")
    assert one.folder == ROOT / "runs"


def test_only_the_first_of_several_processes_reports(tmp_path: Path) -> None:
    os.environ["RANK"] = "1"
    report(tmp_path, "tensorboard")
    assert not (tmp_path / "runs").exists()


class Failing:
    """A tracker that fails at its second figure."""

    def __init__(self) -> None:
        self.logged: list[dict[str, float]] = []

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        if self.logged:
            raise ConnectionError("the server\nis gone")
        self.logged.append(values)


def test_a_tracker_that_fails_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing, opening = Failing(), trackers.open_run
    monkeypatch.setattr(trackers, "fault_of", lambda name: None)
    monkeypatch.setattr(trackers, "address_of", lambda *_: "here")
    monkeypatch.setattr(trackers, "open_run", lambda name, *rest: failing if name == "wandb" else opening(name, *rest))
    report(tmp_path, ["wandb", "tensorboard"])
    (warning,) = capsys.readouterr().err.splitlines()
    assert_names(warning, "some: warning: wandb", "the server")
    assert failing.logged == [{"train/loss": LOSSES[0]}]
    assert len(read_tensorboard(tmp_path / "runs")["loss"]) == 2, "the other tracker still gets reports"


def test_a_tracker_that_cannot_be_opened_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    report(tmp_path, "mlflow")
    (warning,) = capsys.readouterr().err.splitlines()
    assert_names(warning, "some: warning: ", "mlflow", "make trackers")


def test_a_stage_without_figures_opens_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "params.yaml").write_text("report_to: tensorboard")
    with tracking.reporting("check", tmp_path / "params.yaml", SETTINGS, ["data/checked.json"]):
        tracking.log_outs(["data/checked.json"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("value", "names"),
    [("none", []), ("wandb", ["wandb"]), (["mlflow"], ["mlflow"]), (["wandb", "tensorboard"], ["wandb", "tensorboard"])],
)
def test_report_to_is_none_or_one_name_or_a_list(tmp_path: Path, value: Any, names: list[str]) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(yaml.safe_dump(tiny_params() | {"report_to": value}, sort_keys=False))
    config = RLHFConfig.from_file(file)
    assert config.report_to == names
    assert config.changed(seed=2).report_to == names
    write_params(config, file)
    assert RLHFConfig.from_file(file).report_to == names


@pytest.mark.parametrize("value", ["mlfow", None, [], ["none"], ["wandb", "wandb"], ["wandb", 3], {"wandb": 1}, True])
def test_other_values_are_refused(tmp_path: Path, value: Any) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tiny_params() | {"report_to": value}))
    with pytest.raises(ConfigError) as error:
        RLHFConfig.from_file(tmp_path / "params.yaml")
    assert_names(error.value, "report_to: should be none, tensorboard, wandb, mlflow or trackio")
    assert len(str(error.value).splitlines()) == 1
    with pytest.raises(ConfigError, match="report_to"):
        load(tracking._Reporting, tmp_path / "params.yaml")


@pytest.mark.parametrize("tracker", NAMES)
def test_a_missing_package_is_named(tracker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    assert_names(fault_of(tracker), tracker, "make trackers")


def test_a_missing_login_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="`make trackers` installs wandb")
    os.environ |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / ".netrc"), "WANDB_CONFIG_DIR": str(tmp_path)}
    assert_names(fault_of("wandb"), "wandb login", "WANDB_MODE=offline")
    os.environ["WANDB_MODE"] = "offline"
    assert fault_of("wandb", ask_server=True) is None


def closed_port() -> str:
    """Return the address of a port of this machine at which nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


def test_a_server_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: object())
    os.environ |= {"MLFLOW_TRACKING_URI": closed_port(), "TRACKIO_SERVER_URL": closed_port()}
    for name in ("mlflow", "trackio"):
        assert_names(fault_of(name, ask_server=True), name, "refused", "report_to")
        assert fault_of(name) is None, "a stage does not wait for a server twice"
    os.environ["MLFLOW_TRACKING_URI"] = "sqlite:///some.db"
    assert fault_of("mlflow", ask_server=True) is None


@pytest.mark.slow
@pytest.mark.parametrize("address", ["closed", "no address"])
def test_check_asks_the_server_of_wandb(tmp_path: Path, address: str) -> None:
    """The server is asked in a process of its own, because W&B keeps its login as long as Python runs."""
    pytest.importorskip("wandb", reason="`make trackers` installs wandb")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tiny_params() | {"report_to": "wandb"}))
    server = closed_port() if address == "closed" else address
    world = World(tmp_path, {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": server, "HOME": str(tmp_path)})
    error = the_error("check", world.run("python", str(ROOT / "stages/check.py"), status=2).replace("check: reads", "reads"))
    assert_names(error, "report_to", "wandb cannot be used", "WANDB_MODE=offline")


def test_check_finds_what_cannot_be_used(tmp_path: Path, run_stage: RunStage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None if name == "wandb" else object())
    os.environ["MLFLOW_TRACKING_URI"] = closed_port()
    for name, part in (("wandb", "make trackers"), ("mlflow", "refused")):
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(tiny_params() | {"report_to": name}))
        ended = run_stage(World(tmp_path), "check", status=2)
        assert_names(the_error("check", ended.err), "report_to", name, part)
        assert not (tmp_path / "data/checked.json").exists()


def test_no_pin_of_a_tracker_is_a_pin_of_the_pipeline() -> None:
    pinned = [set(re.findall(r"^([\w.-]+)==", (ROOT / f"{name}.txt").read_text(), re.MULTILINE)) for name in PINS]
    assert {"wandb", "mlflow-skinny", "trackio"} <= pinned[1]
    assert pinned[0] & pinned[1] == set()


PINS = ("requirements", "requirements-trackers")


def test_trackers_change_no_byte_of_any_stage(world: World, run_stage: RunStage) -> None:
    before = outs(world, "models", "metrics", "plots", "data", "reports")
    world.set("report_to", "tensorboard")
    for stage, *item in (["sft"], ["reward"], ["ppo"], ["sample", "rlhf"], ["evaluate"]):
        run_stage(world, stage, *item)
    assert outs(world, "models", "metrics", "plots", "data", "reports") == before
    found = {path.name.rpartition("-")[0]: path for path in (world / "runs/tensorboard").glob("*/*")}
    assert found.keys() == {"sft", "reward", "ppo", "sample@rlhf", "evaluate"}
    assert len({path.parent for path in found.values()}) == 1, "one group"


@pytest.mark.thorough
def test_an_experiment_in_a_copy_reports_to_the_main_repository(world: World) -> None:
    output = world.run("dvc", "exp", "run", "--temp", "-n", "warm-film", "-S", "report_to=tensorboard", "-S", "sft.epochs=2")
    assert {"sft", "ppo", "evaluate"} <= set(world.stages_run(output))
    names = {path.name for path in (world / "runs/tensorboard/warm-film").iterdir()}
    assert {name.split("-")[0] for name in names} >= {"sft", "reward", "ppo", "sample@rlhf", "evaluate"}
    assert all(name.endswith("-warm-film") for name in names)
