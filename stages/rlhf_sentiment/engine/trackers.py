"""The trackers that `report_to` can name: what each needs, where it writes, and how it gets pictures and tables.

accelerate's trackers open the runs and log the figures. Their packages are loaded only when a tracker is used.
"""

import os
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, get_args

from pydantic import BeforeValidator, PlainSerializer

from .errors import first_line
from .messages import shown

if TYPE_CHECKING:
    import pandas as pd

Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]
PROJECT = "rlhf-sentiment"

# The packages of each tracker. MLflow writes its store through the last two.
_PACKAGES = {"mlflow": ("mlflow", "sqlalchemy", "alembic")}
# The variables that name a server.
_SERVERS = {"mlflow": "MLFLOW_TRACKING_URI", "trackio": "TRACKIO_SERVER_URL"}
_SECONDS = 10  # to wait for a server


def _names(value: Any) -> list[Any]:
    names = [] if value == "none" else value if isinstance(value, list) else [value]
    known = get_args(Tracker)
    if value == [] or len(set(map(str, names))) < len(names) or not all(name in known for name in names):
        raise ValueError(f"should be none, {', '.join(known[:-1])} or {known[-1]}, or a list of these (got {shown(value)})")
    return names


def _written(names: list[str]) -> Any:
    return "none" if not names else names[0] if len(names) == 1 else names


# A list in the code. params.yaml may also have `none` or one name.
ReportTo = Annotated[list[Tracker], BeforeValidator(_names), PlainSerializer(_written)]


class Named(NamedTuple):
    """What every tracker says of a run.

    Attributes:
        stage, group: the run's stage, and the name that all runs of one `dvc repro` or experiment share.
        name: the run's own name.
        folder: the folder runs/ of the main repository.
    """

    stage: str
    group: str
    name: str
    folder: Path


def fault_of(tracker: str, ask_server: bool = False) -> str | None:
    """Return why a tracker cannot be used here, and what would be right. None where it can.

    Args:
        tracker: its name.
        ask_server: whether to wait for an answer of the tracker's server, where there is one. Otherwise no server is asked.
    """
    for package in _PACKAGES.get(tracker, (tracker,)):
        if find_spec(package) is None:
            return f"{tracker} needs the package {package}; `make trackers` installs it (docs/tracking.md)"
    offline = "set the variable WANDB_MODE=offline" if tracker == "wandb" else "set report_to to none until it can"
    try:
        if tracker == "wandb" and os.environ.get("WANDB_MODE", "online") not in ("offline", "disabled", "dryrun"):
            import wandb

            os.environ.setdefault("WANDB_SILENT", "true")
            if not wandb.login(prompt=False, verify=ask_server, timeout=_SECONDS):
                return f"wandb has no login; run `wandb login`, or {offline}"
        server = os.environ.get(_SERVERS.get(tracker, ""), "")
        if ask_server and server.startswith(("http://", "https://")):
            urllib.request.urlopen(server, timeout=_SECONDS).close()  # noqa: S310 (http or https)
    except Exception as error:  # each library has its own errors
        if not isinstance(error, urllib.error.HTTPError) or error.code >= 500:  # it answers, if only that a login is missing
            return f"{tracker} cannot be used: {first_line(error)}; {offline}"
    return None


def open_run(tracker: str, run: Named, config: dict[str, Any]) -> Any:
    """Open a run, write its settings, and return accelerate's tracker of it.

    Variables that users set for a library, such as MLFLOW_TRACKING_URI, are kept.
    """
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    project, options = _options(tracker, run)
    opened = LOGGER_TYPE_TO_CLASS[tracker](project, **options)
    opened.start()
    opened.store_init_configuration(config)
    return opened


def close_run(tracker: str, opened: Any) -> None:
    """Close a run."""
    if tracker == "trackio":
        import trackio

        trackio.finish()  # accelerate's own leaves the run to trackio, which closes it again when Python ends
    else:
        opened.finish()


def _options(tracker: str, run: Named) -> tuple[str, dict[str, Any]]:
    """Return the project of a run, and the options of accelerate's tracker."""
    folder = run.folder / tracker
    run.folder.mkdir(parents=True, exist_ok=True)
    if tracker == "tensorboard":
        return f"{run.group}/{run.name}", {"logging_dir": folder}
    if tracker == "wandb":
        import wandb

        for variable in ("WANDB_DATA_DIR", "WANDB_CACHE_DIR"):  # otherwise copies of the tables stay in the home folder
            os.environ.setdefault(variable, str(folder))
        quiet = wandb.Settings(silent=True, console="off", init_timeout=3 * _SECONDS, finish_timeout=6 * _SECONDS)
        options = {"name": run.name, "group": run.group, "job_type": run.stage, "dir": run.folder, "settings": quiet}
        return os.environ.get("WANDB_PROJECT", PROJECT), options
    folder.mkdir(parents=True, exist_ok=True)
    if tracker == "mlflow":
        _prepare_mlflow(folder)
        tags = {"group": run.group, "stage": run.stage}
        artifacts = {} if _is_remote(os.environ["MLFLOW_TRACKING_URI"]) else {"logging_dir": (folder / "artifacts").as_uri()}
        return PROJECT, {"run_name": run.name, "tags": tags, **artifacts}
    os.environ.setdefault("TRACKIO_DIR", str(folder))
    local = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    return PROJECT, {"name": run.name, "group": run.group, "resume": "allow", **local}


def _prepare_mlflow(folder: Path) -> None:
    """Name the store, and keep a failing server from holding the training up for minutes."""
    import logging

    os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(_SECONDS))
    import mlflow  # noqa: F401 (it sets the levels of its loggers)

    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _is_remote(address: str) -> bool:
    return not address.startswith(("sqlite:", "file:", "/", "."))


def address_of(tracker: str, opened: Any, run: Named) -> str:
    """Return where a tracker writes: a folder, or the address of a server."""
    if tracker == "tensorboard":
        return str(opened.logging_dir)
    if tracker == "wandb":
        if opened.run.disabled:
            return "nowhere, because WANDB_MODE is disabled"
        return opened.run.dir.removesuffix("/files") if opened.run.offline else opened.run.url
    if tracker == "mlflow":
        return os.environ["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///")
    return os.environ.get("TRACKIO_SPACE_ID") or os.environ.get("TRACKIO_SERVER_URL") or os.environ["TRACKIO_DIR"]


def log_picture(tracker: str, opened: Any, name: str, path: Path) -> None:
    """Report a picture."""
    if tracker == "mlflow":
        opened.log_artifact(str(path), "pictures")
        return
    if tracker == "trackio":
        import trackio

        opened.log({name: trackio.Image(str(path))})
        return
    import numpy as np
    from PIL import Image

    pixels = np.asarray(Image.open(path).convert("RGB"))[None]  # (1, height, width, 3)
    opened.log_images({name: pixels}, **({"dataformats": "NHWC"} if tracker == "tensorboard" else {}))


def log_table(tracker: str, opened: Any, name: str, table: "pd.DataFrame") -> None:
    """Report a table. TensorBoard has no tables, and gets Markdown."""
    if tracker == "wandb":
        opened.log_table(name, dataframe=table)
    elif tracker == "mlflow":
        import mlflow

        mlflow.log_table(table, f"{name}.json")
    elif tracker == "trackio":
        import trackio

        opened.log({name: trackio.Table(dataframe=table)})
    else:
        opened.log({name: _markdown(table)})


def _markdown(table: "pd.DataFrame") -> str:
    from .messages import escaped

    rows = [list(table.columns), ["---"] * len(table.columns), *table.itertuples(index=False)]
    return "\n".join(f"| {' | '.join(str(one) if one == '---' else escaped(str(one)) for one in row)} |" for row in rows)
