"""The hub. It gets a few seconds to answer, for all requests of a process together.

The libraries retry each request, for minutes in all. Here a request is sent at most three times. When the seconds are used up,
every later request fails at once, and the libraries use their cache.
"""

import threading
import time
from collections.abc import Iterator
from typing import Any

from huggingface_hub import HfApi, constants, is_offline_mode, set_client_factory
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

from .errors import StageError
from .messages import cut

PATIENCE = 6.0  # seconds of failed requests and of pauses between them
_PAUSES = (1.0, 2.0, 0.0)  # seconds after each failed attempt at a request
_BUSY = (408, 429)  # statuses of a server that may answer later, as all from 500 on
LOCAL = "`make local-data` and profiles/imdb-local.yaml, hh-local.yaml or stories-llama.yaml use local files"


class UnreachableError(StageError):
    """The hub does not answer, and the cache does not hold what was asked for."""


class _Waiting:
    """The patience that is left, and why it was used up."""

    def __init__(self) -> None:
        self.left = PATIENCE
        self.why = ""

    def spend(self, seconds: float, host: str, why: object) -> None:
        self.left -= seconds
        self.why = self.why or f"{host} does not answer: {cut(' '.join(str(why).split()), 120)}"


waiting = _Waiting()


def silent() -> str:
    """Return why the hub cannot be asked, or an empty text."""
    if is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    return waiting.why if waiting.left <= 0 else ""


def ask(kind: str, name: str, revision: str | None, what: str) -> None:
    """Ask the hub whether it has something. If it does not answer, all later requests fail at once.

    Args:
        kind: `dataset` or `model`.
        name: the hub id.
        revision: the revision.
        what: the setting and the id, for messages.

    Raises:
        StageError: the hub does not have it, or needs a login for it.
    """
    if silent():
        return
    set_client_factory(lambda: _Client(follow_redirects=True, timeout=None))
    constants.HF_HUB_DISABLE_XET = True  # the protocol xet has its own client, which retries for minutes
    constants.HF_HUB_DISABLE_TELEMETRY = True  # it has requests of its own
    failed: list[Exception] = []

    def request() -> None:
        try:
            HfApi(endpoint=constants.ENDPOINT).repo_info(name, repo_type=kind, revision=revision)
        except Exception as error:  # a wrong answer can be of any form
            failed.append(error)

    # A thread, because a name server without an answer and an answer in small pieces know no timeout.
    thread = threading.Thread(target=request, daemon=True)
    thread.start()
    thread.join(PATIENCE + 0.5)
    if thread.is_alive():
        waiting.spend(PATIENCE, constants.ENDPOINT, f"nothing in {PATIENCE:g} s")
    for error in failed:
        if isinstance(error, HfHubHTTPError):
            raise StageError(f"{what} cannot be read: {_refusal(error.response.status_code)}")
        if not isinstance(error, OfflineModeIsEnabled | HFValidationError):
            waiting.spend(PATIENCE, constants.ENDPOINT, f"what it sends is not a valid answer ({type(error).__name__})")


def _refusal(status: int) -> str:
    if status == 404:
        return f"{constants.ENDPOINT} has no such id or revision (status 404); correct the name"
    if status in (401, 403):
        needs = f"{constants.ENDPOINT} has no such id, or needs a login for it (status {status})"
        return f"{needs}; correct the name, or run `hf auth login`"
    return f"{constants.ENDPOINT} refuses it (status {status})"


class _Client(httpx.Client):
    """Sends a request of the libraries up to three times, with the patience that is left."""

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        for pause in _PAUSES:
            if why := silent():
                raise OfflineModeIsEnabled(why)
            request.extensions["timeout"] = dict.fromkeys(("connect", "read", "write", "pool"), waiting.left)
            began = time.monotonic()
            try:
                response = super().send(request, **options)
            except httpx.TransportError as error:
                why = str(error) or type(error).__name__
            else:
                if response.status_code < 500 and response.status_code not in _BUSY:
                    if options.get("stream"):
                        response.stream = _Body(response.stream, request.url.host)
                    return response
                response.close()
                why = f"status {response.status_code}"
            time.sleep(max(0.0, min(pause, waiting.left - (time.monotonic() - began))))
            waiting.spend(time.monotonic() - began, request.url.host, why)
        waiting.spend(PATIENCE, request.url.host, why)
        raise OfflineModeIsEnabled(silent())


class _Body(httpx.SyncByteStream):
    """The body of an answer. If it breaks off, patience is spent."""

    def __init__(self, body: Any, host: str) -> None:
        self.body, self.host = body, host

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self.body
        except httpx.TransportError as error:
            lost = PATIENCE if isinstance(error, httpx.TimeoutException) else 2.0
            waiting.spend(lost, self.host, str(error) or type(error).__name__)
            raise

    def close(self) -> None:
        self.body.close()
