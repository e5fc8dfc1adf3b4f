"""A hub that is silent, busy, or says no. A server on this machine takes its place."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants, get_session

import prepare as stage
from prepare import Prepared
from rlhf_sentiment.data.card import card
from rlhf_sentiment.data.sizes import for_grammar
from rlhf_sentiment.data.sources import read_sources
from rlhf_sentiment.engine import hub
from rlhf_sentiment.engine.errors import StageError
from rlhf_sentiment.engine.hub import UnreachableError
from rlhf_sentiment.models.loading import load_policy
from rlhf_sentiment.settings.data import PROPORTIONS, DataSettings

from .conftest import assert_names, prepare_params, tiny_params, write_reviews

COMMIT = "a" * 40
WAYS_OUT = ("auto", "make local-data", "profiles/imdb-local.yaml")
INFO = json.dumps({"id": "owner/none", "sha": COMMIT, "siblings": [], "tags": []}).encode()

Answer = Callable[[BaseHTTPRequestHandler], None]


def status(code: int) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        request.send_header("Retry-After", "120")
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


def hang(request: BaseHTTPRequestHandler) -> None:
    time.sleep(2)


def trickle(request: BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    for _ in range(25):
        request.wfile.write(b"x")
        time.sleep(0.2)


def say(body: bytes) -> Answer:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    return answer


def later(answer: Answer) -> Answer:
    """Know the data set, and answer so when its files are read."""
    return lambda request: (say(INFO) if request.path.startswith("/api/datasets/") else answer)(request)


@contextmanager
def server(monkeypatch: pytest.MonkeyPatch, answer: Answer) -> Iterator[list[str]]:
    """Let a server on this machine be the hub, and give the paths that were requested."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            with suppress(OSError):  # the client has gone
                answer(self)

        def do_HEAD(self) -> None:
            self.do_GET()

        def log_message(self, *_: Any) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as made:
        made.daemon_threads, made.block_on_close = True, False
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        be_the_hub(monkeypatch, made.server_address[1])
        yield asked
        made.shutdown()


def be_the_hub(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    for place in ("huggingface_hub.constants.ENDPOINT", "datasets.config.HF_ENDPOINT"):
        monkeypatch.setattr(place, f"http://127.0.0.1:{port}")
    files = f"http://127.0.0.1:{port}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", files)


@pytest.fixture(autouse=True)
def little_patience(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Wait for parts of a second, and use an empty cache and an empty folder."""
    before = set(threading.enumerate())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "PATIENCE", 0.6)
    monkeypatch.setattr(hub, "_PAUSES", (0.1, 0.2, 0.0))
    monkeypatch.setattr(hub, "waiting", hub._Waiting())
    for name in ("HF_HUB_OFFLINE", "HF_HUB_DISABLE_XET", "HF_HUB_DISABLE_TELEMETRY"):
        monkeypatch.setattr(constants, name, False)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache/hub"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache/datasets")
    monkeypatch.setattr("huggingface_hub.utils._http._GLOBAL_CLIENT_FACTORY", None)
    monkeypatch.setattr("huggingface_hub.utils._http._GLOBAL_CLIENT", None)
    yield
    for thread in set(threading.enumerate()) - before:  # a request without an answer would use up the patience of the next test
        thread.join(3)


def settings(source: str, dataset: str = "owner/none", **changes: Any) -> DataSettings:
    names = tiny_params()["data"]["hub"] | {"dataset": dataset, "revision": COMMIT, "test": "test"}
    return DataSettings(**tiny_params()["data"] | {"source": source, "hub": names, "prompt_words": 3} | changes)


def prepare(source: str, judge: str = "data", **changes: Any) -> Prepared:
    return stage.prepare(prepare_params(settings(source, **changes), judge))


SILENT: dict[str, Answer] = {
    "503": status(503),
    "429": status(429),
    "hangs": hang,
    "trickles": trickle,
    "another page": say(b"<html>Log in</html>"),
    "503 later": later(status(503)),
    "hangs later": later(hang),
}


@pytest.mark.parametrize("kind", SILENT)
def test_auto_falls_back_soon(kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with server(monkeypatch, SILENT[kind]) as asked:
        began = time.monotonic()
        found = read_sources(settings("auto"), f"owner/reviews@{COMMIT}")
        assert time.monotonic() - began < 30, "the libraries alone retry for minutes"
    assert (found.name, found.judge, found.intakes) == ("synthetic", "synthetic", {})
    (warning,) = capsys.readouterr().err.splitlines()
    assert_names(warning, "warning", "data.hub.dataset owner/none", "127.0.0.1", "synthetic", *WAYS_OUT)
    assert [path for path in asked if "reviews" in path] == [], "the second source is not tried"


def test_all_texts_are_synthetic_without_a_network(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        be_the_hub(monkeypatch, closed.getsockname()[1])
    theirs: dict[str, Any] = {"corpus": "data/raw/none", "prompts": "data/raw/none", "licence": "theirs", "flipped_pairs": 0.1}
    for judge in ("data", "synthetic", f"owner/none@{COMMIT}", "data/raw/none.jsonl"):
        found = read_sources(settings("auto", **theirs), judge)
        assert (found.name, found.judge, found.own_judge, found.intakes) == ("synthetic", "synthetic", False, {}), judge
        assert len(capsys.readouterr().err.splitlines()) == 1
        with pytest.raises(UnreachableError) as error:
            read_sources(settings("hub", **theirs), judge)
        assert_names(error.value, "data.hub.dataset owner/none", "127.0.0.1", *WAYS_OUT)
    fallen = prepare("auto", "data/raw/none.jsonl", **theirs)
    assert fallen.tables == prepare("synthetic").tables
    assert [fallen.figures[key] for key in ("source", "judge_source", "shape")] == ["synthetic", "synthetic", "grammar"]
    assert list(fallen.figures["files"]) == ["grammar"]
    said = card(fallen.tables, fallen.figures, fallen.data)
    assert_names(said, "Source: synthetic, because the hub could not be reached", "Licence: MIT")


def test_a_judge_that_cannot_be_reached_takes_all_sources_along(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_reviews(Path("owner/reviews"), train=300, test=60)
    judge = f"owner/none@{COMMIT}"
    with server(monkeypatch, status(500)):
        assert prepare("auto", judge, dataset="owner/reviews").figures["source"] == "synthetic"
        (warning,) = capsys.readouterr().err.splitlines()
        assert_names(warning, "judge.source owner/none", *WAYS_OUT)
        with pytest.raises(UnreachableError) as error:
            prepare("hub", judge, dataset="owner/reviews")
        assert_names(error.value, "judge.source owner/none", *WAYS_OUT)


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_what_the_hub_refuses_stops_at_once(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PATIENCE", 6.0)  # a busy machine may answer late
    monkeypatch.setattr(hub, "waiting", hub._Waiting())
    with server(monkeypatch, status(code)) as asked:
        for source, judge, setting in (
            ("auto", "data", "data.hub.dataset"),
            ("synthetic", f"owner/none@{COMMIT}", "judge.source"),
        ):
            with pytest.raises(StageError) as error:
                prepare(source, judge)
            assert not isinstance(error.value, UnreachableError)
            assert_names(error.value, setting, "owner/none", str(code))
        with pytest.raises(StageError) as error:
            load_policy("owner/none", revision=COMMIT)
        assert_names(error.value, "owner/none", str(code))
    assert len(asked) < 6, "no request is sent three times"


def test_a_model_that_cannot_be_reached_is_an_error_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "PATIENCE", 6.0)  # a busy machine may answer late
    monkeypatch.setattr(hub, "waiting", hub._Waiting())
    with server(monkeypatch, status(503)) as asked, pytest.raises(UnreachableError) as error:
        load_policy("owner/none", revision=COMMIT)
    assert_names(error.value, "owner/none", "503", "base.model", *WAYS_OUT)
    assert len(asked) == len(hub._PAUSES)


def test_offline_the_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with server(monkeypatch, status(404)) as asked:
        assert prepare("auto").figures["source"] == "synthetic"
        for read in (lambda: prepare("hub"), lambda: load_policy("owner/none", revision=COMMIT)):
            with pytest.raises(UnreachableError) as error:
                read()
            assert_names(error.value, "owner/none", "HF_HUB_OFFLINE", *WAYS_OUT)
    assert not asked


def holds(files: dict[str, bytes]) -> Answer:
    """Answer as a hub that has a data set of these files."""

    def answer(request: BaseHTTPRequestHandler) -> None:
        path = request.path.split("?")[0]
        name = path.rpartition("/")[2]
        found: Any = json.loads(INFO)
        if "/tree/" in path:
            found = [{"type": "file", "path": file, "size": len(text), "oid": file} for file, text in files.items()]
        body = files.get(name, b"") if "/resolve/" in path else json.dumps(found).encode()
        request.send_response(200 if body else 404)
        request.send_header("X-Repo-Commit", COMMIT)
        request.send_header("ETag", f'"{name}"')
        if not body:
            request.send_header("X-Error-Code", "EntryNotFound")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if request.command == "GET":
            request.wfile.write(body)

    return answer


def source() -> str:
    return read_sources(settings("auto", dataset="owner/reviews"), "data").name


def reviews() -> dict[str, bytes]:
    write_reviews(Path("made"), train=300, test=60)
    return {file.name: file.read_bytes() for file in Path("made").iterdir()}


def test_the_cache_is_used_if_it_has_the_commit_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    with server(monkeypatch, holds(reviews())):
        assert source() == "owner/reviews"
    with server(monkeypatch, status(503)):
        assert source() == "owner/reviews"
        (folder,) = Path("cache/datasets").rglob(COMMIT)
        other = folder.rename(folder.with_name("b" * 40))
        assert source() == "synthetic", "another commit"
        other.rename(folder)
        (folder / "reviews-test.arrow").unlink()
        assert source() == "synthetic", "half a download"


def test_a_download_that_stops_halfway_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    has = holds(reviews())
    with server(monkeypatch, lambda request: (hang if request.path.endswith("/test.jsonl") else has)(request)) as asked:
        assert source() == "synthetic"
    assert any(path.endswith("/train.jsonl") for path in asked)


def test_a_file_that_breaks_off_spends_the_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    def half(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "10")
        request.end_headers()
        request.wfile.write(b"half")
        time.sleep(2)

    with server(monkeypatch, later(half)):
        hub.ask("dataset", "owner/none", COMMIT, "it")
        assert not hub.silent()
        with get_session().stream("GET", f"{constants.ENDPOINT}/file") as response, pytest.raises(Exception, match="timed out"):
            response.read()
        assert_names(hub.silent(), "timed out")


def test_fewer_rows_are_written_with_a_warning(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    many: dict[str, Any] = dict.fromkeys(PROPORTIONS, 30_000) | {"sft_rows": 10, "pairs": None, "prompts_test": 0.5}
    few = read_sources(settings("auto", **many), "data").data
    assert {name: getattr(few, name) for name in ("sft_rows", "pairs", "corpus_texts")} == {
        "sft_rows": 10,
        "pairs": PROPORTIONS["pairs"] // 4,
        "corpus_texts": PROPORTIONS["corpus_texts"] // 4,
    }
    assert (few.prompts_train, few.prompts_test) == (30_000, PROPORTIONS["prompts_test"])
    assert_names(capsys.readouterr().err, "corpus_texts 30000 to 2500")
    assert all(number % 2 == 0 for name, number in for_grammar(few)[0].items() if name in ("labelled_texts", "sft_rows"))
