"""Start the ranks of a stage, watch them, and end all of them where one fails.

The process that `python stages/ppo.py` or DVC started becomes the launcher. It computes nothing, and runs the same command once
more for each rank. The launcher of torch, torchrun, ends all ranks at once when a signal comes. Here rank 0
first writes a checkpoint, a rank that hangs is noticed, and one line says which rank failed and why.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import psutil

from .errors import ConfigError, first_line
from .messages import listed, tell
from .ranks import FULL, LAUNCHER, LAYERS_STAY, LOST, SHARDS, SIGNS, STEPS
from .yaml_files import read_yaml

_POLL = 0.2  # seconds
_GRACE = 10.0  # seconds for other ranks to end by themselves, once one has ended
# A rank hangs after so many seconds without a sign of life: before the first step, and later, or so many times the longest gap.
_START, _PATIENCE = 600.0, 60.0
_FACTOR = 10.0


class Rank:
    """A process of the stage.

    Attributes:
        number: among the ranks of all machines, from 0.
        process: the process.
        errors: what it wrote on stderr. None for rank 0, which writes to the terminal.
        signs: the file of its signs of life.
    """

    def __init__(self, command: Sequence[str], environment: dict[str, str], folder: Path) -> None:
        self.number = int(environment["RANK"])
        self.signs = folder / str(self.number)
        self.signs.touch()
        self.errors = folder / f"{self.number}.txt" if self.number else None
        out = None if self.errors is None else subprocess.DEVNULL
        err = None if self.errors is None else self.errors.open("wb")
        self.process = psutil.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        if err is not None:
            err.close()

    @property
    def status(self) -> int | None:
        """The exit status, or None while the process runs."""
        return self.process.poll()

    def count(self) -> int:
        """Return the number of signs of life."""
        return self.signs.stat().st_size

    def lost(self) -> str:
        """Return the error with which it lost another rank, empty where there is none."""
        file = self.signs.with_name(f"{self.number}.lost")
        return file.read_text(encoding="utf-8") if file.is_file() else ""

    def said(self) -> str:
        """Return the last line on stderr, empty where there is none."""
        lines = self.errors.read_text(errors="replace").splitlines() if self.errors else []
        return lines[-1] if lines else ""


def run(stage: str, launcher: int | str) -> int:
    """Run this command in several ranks, and return the exit status of the stage.

    Args:
        stage: the name for messages.
        launcher: the number of ranks, or a configuration file of accelerate.

    Raises:
        ConfigError: the configuration file is absent or wrong.
    """
    environments = [os.environ | each for each in environments_of(launcher)]
    command = [sys.executable, *sys.orig_argv[1:]]
    ranks: list[Rank] = []
    with TemporaryDirectory() as folder, forwarded(ranks) as signals:
        about = {SIGNS: folder, LAUNCHER: str(os.getpid())}
        try:
            for each in environments:
                ranks.append(Rank(command, each | about, Path(folder)))
            return watch(stage, ranks, signals)
        finally:
            end(ranks)


def watch(stage: str, ranks: list[Rank], signals: list[int]) -> int:
    """Wait for the end of rank 0, or of the first rank that fails or hangs. Return the exit status of the stage.

    Prints one line where rank 0 has not printed the reason itself.

    Args:
        stage: the name for messages.
        ranks: of this machine.
        signals: those that came, which grows.
    """
    if (culprits := hanging(ranks)) is not None:
        tell(stage, f"{culprits}; all ranks were ended")
        return 1
    deadline = time.monotonic() + _GRACE
    main = ranks[0]
    while main.status in (None, LOST) and any(one.status is None for one in ranks) and time.monotonic() < deadline:
        time.sleep(_POLL)
    if main.status == 0 or (main.number == 0 and main.status is not None and main.status > 0 and main.status != LOST):
        return main.status  # rank 0 has printed the reason
    if signals and main.status is not None and main.status < 0:  # it was starting
        tell(stage, f"stopped by {signal.Signals(signals[-1]).name}")
        return 128 + signals[-1]
    failed = next((one for one in ranks if one.status not in (None, 0, LOST)), None)
    if failed is None or failed.status is None:
        lost = next((why for one in ranks if (why := one.lost())), "no rank says why")
        tell(stage, f"the ranks lost each other ({lost}); all ranks were ended")
    elif failed.status < 0:
        tell(stage, f"rank {failed.number} was ended by {signal.Signals(-failed.status).name}; all ranks were ended")
    else:
        name = f"rank {failed.number}"
        said = failed.said().removeprefix(f"{stage}: ").removeprefix(f"{name}: ") or f"ended with status {failed.status}"
        tell(stage, f"{name}: {said}")
    return 1


def hanging(ranks: list[Rank]) -> str | None:
    """Wait until rank 0 ends, or another rank fails or hangs. Return what to say of ranks that hang, or None.

    Until the steps begin, ranks load models and texts, and rank 0 may wait for a lock. A rank that hangs then is noticed late.
    On other machines than the first, ranks may wait for what rank 0 writes.
    """
    signs, since, longest = None, time.monotonic(), 0.0
    has_steps = False
    while ranks[0].status is None and all(rank.status in (None, 0) for rank in ranks):
        time.sleep(_POLL)
        now = [(rank.count(), rank.signs.stat().st_mtime_ns) for rank in ranks]
        if now != signs:
            longest = max(longest, time.monotonic() - since) if has_steps else 0.0
            signs, since, has_steps = now, time.monotonic(), ranks[0].signs.with_name(STEPS).exists()
        limit = max(_PATIENCE, _FACTOR * longest) if has_steps else _START
        has_others = any(rank.status is None for rank in ranks[1:])
        if has_others and ranks[0].number == 0 and ranks[0].count() > 0 and time.monotonic() - since > limit:
            return f"{_culprits(ranks)} gave no sign of life for {limit:.0f} seconds"
    return None


def _culprits(ranks: list[Rank]) -> str:
    """Return the names of the ranks for which the others wait."""
    stopped = [rank for rank in ranks if rank.process.status() == psutil.STATUS_STOPPED]
    fewest = min(rank.count() for rank in ranks)
    waited_for = stopped or [rank for rank in ranks if rank.count() == fewest]
    return " or ".join(f"rank {rank.number}" for rank in waited_for)


def end(ranks: list[Rank]) -> None:
    """End the ranks that still run, and all processes that they started."""
    for rank in ranks:
        if rank.status is None:
            with suppress(psutil.NoSuchProcess):
                for process in [*rank.process.children(recursive=True), rank.process]:
                    process.kill()
            rank.process.wait()


@contextmanager
def forwarded(ranks: list[Rank]) -> Iterator[list[int]]:
    """Hand SIGINT and SIGTERM to rank 0, which stops the others after a checkpoint. On other machines, end the ranks.

    A terminal sends SIGINT to all processes at once. Rank 0 counts two within a second as one. The block gets a list of the
    signals that came.
    """
    came: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        came.append(number)
        if not ranks:
            sys.exit(128 + number)
        if ranks[0].status is None:
            ranks[0].process.send_signal(number if ranks[0].number == 0 else signal.SIGKILL)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:
            signal.signal(number, forward)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def environments_of(launcher: int | str) -> list[dict[str, str]]:
    """Return the variables of each rank of this machine, as torchrun and `accelerate launch` set them.

    SLURM says which of several machines this is (SLURM_NODEID). Otherwise, the file says it.

    Raises:
        ConfigError: the configuration file of accelerate is absent or wrong.
    """
    if isinstance(launcher, int):
        port = _free_port()
        return [_variables(rank, rank, launcher, launcher, "127.0.0.1", port) for rank in range(launcher)]
    from accelerate.commands import launch  # it loads torch
    from accelerate.utils import DistributedType
    from accelerate.utils.launch import prepare_multi_gpu_env

    if not Path(launcher).is_file():
        raise ConfigError(f"launcher: {launcher}: no such file")
    if "num_processes" not in read_yaml(Path(launcher), "keys such as `num_processes:`"):
        raise ConfigError(f"launcher: {launcher}: num_processes is missing; write it as `num_processes: 2`")
    try:
        config = launch.load_config_from_file(launcher)
        kind = config.distributed_type
        if kind not in (DistributedType.NO, DistributedType.MULTI_GPU, DistributedType.MULTI_CPU, DistributedType.FSDP):
            asked = getattr(kind, "value", kind)
            raise ValueError(f"it asks for {asked}, but DDP and FSDP are supported; set distributed_type: MULTI_GPU or FSDP")
        reshard = _resharding(config.fsdp_config) if kind == DistributedType.FSDP else False
        parser = launch.launch_command_parser()
        given, _, _ = launch._validate_launch_command(parser.parse_args(["--config_file", launcher, "the stage"]))
        total, machines = given.num_processes, given.num_machines or 1
        machine = int(os.environ.get("SLURM_NODEID") or given.machine_rank or 0) if machines != 1 else 0
        if type(total) is not int or type(machines) is not int or total < 2 or machines < 1 or total % machines:
            raise ValueError(f"num_processes should be 2 or more, and a multiple of num_machines (got {total} and {machines})")
        if not 0 <= machine < machines:
            raise ValueError(f"machine_rank should be from 0 to {machines - 1} (got {machine})")
        given.machine_rank, given.main_process_port = machine, given.main_process_port if machines > 1 else 0
        everything = prepare_multi_gpu_env(given)
        here, address, port = total // machines, given.main_process_ip or "127.0.0.1", int(given.main_process_port)
    except Exception as error:  # accelerate has many for a wrong file
        raise ConfigError(f"launcher: {launcher}: {first_line(error)}") from error
    common = {name: value for name, value in everything.items() if os.environ.get(name) != value}
    common.pop("OMP_NUM_THREADS", None)  # `threads` in params.yaml says it
    common = {name: value for name, value in common.items() if not name.startswith(("FSDP_", "ACCELERATE_USE_FSDP"))}
    if kind == DistributedType.FSDP:
        common[SHARDS] = FULL if reshard else LAYERS_STAY
    return [common | _variables(machine * here + local, local, total, here, address, port) for local in range(here)]


def _resharding(asked: dict[str, Any]) -> bool:
    """Return whether a layer is divided again after its forward pass, as the section `fsdp_config` says.

    Raises:
        ValueError: it asks for something that models/fsdp.py does not do.
    """
    done = {"fsdp_version": 2, "fsdp_offload_params": False, "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}
    known = {*done, "fsdp_reshard_after_forward"}
    for name, value in asked.items():
        if name not in known or value != done.get(name, value):
            raise ValueError(
                f"fsdp_config.{name}: {value} is not supported; the keys are {listed(sorted(known))}, as in fsdp2.yaml"
            )
    if asked.get("fsdp_version") != 2:
        raise ValueError("fsdp_config.fsdp_version should be 2")
    return bool(asked.get("fsdp_reshard_after_forward", True))


def _variables(rank: int, local: int, total: int, here: int, address: str, port: int) -> dict[str, str]:
    names = {"RANK": rank, "LOCAL_RANK": local, "WORLD_SIZE": total, "LOCAL_WORLD_SIZE": here}
    return {name: str(value) for name, value in names.items()} | {"MASTER_ADDR": address, "MASTER_PORT": str(port)}


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
