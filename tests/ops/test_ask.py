"""`retort ask` reads an answer to its end, whatever happens to the line: here against a server that cuts it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from app.operate import Problem, ask
from app.operate.client import Api
from tests.conftest import free_ports

EVIDENCE = [{"text": "The kettle is red.", "url": "https://example.org/#kettle", "title": "Kettles"}]
FIRST, SECOND = "It is red.", "It whistles."


def message(status: str, wording: str = "") -> dict[str, Any]:
    return {
        "id": "a", "status": status, "text": wording, "wording": wording, "evidence": EVIDENCE, "citations": [],
        "refused": False, "tokens": 7, "error": None,
    }  # fmt: skip


def event(number: int, name: str, data: dict[str, Any]) -> bytes:
    return f"id: {number}-0\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


DONE = event(4, "done", {"message": message("done", f"{FIRST} {SECOND}")})
EVENTS = {
    1: event(1, "evidence", {"message_id": "a", "evidence": EVIDENCE}),
    2: event(2, "sentence", {"message_id": "a", "index": 0, "text": FIRST}),
    3: event(3, "sentence", {"message_id": "a", "index": 1, "text": SECOND}),
    4: DONE,
}


class Server:
    """Speaks the API over real sockets; `streams` says how each stream in turn goes: bytes to send, and how it ends."""

    def __init__(self, streams: list[tuple[list[bytes], str]]) -> None:
        self.asked_from: list[str | None] = []
        self.posted = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: Any) -> None:
                pass

            def _json(self, status: int, body: dict[str, Any]) -> None:
                raw = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                if self.path.endswith("/messages"):
                    outer.posted += 1
                    self._json(202, {"message": {"id": "q"}, "answer": {"id": "a"}})
                else:
                    self._json(201, {"id": "c", "messages": [], "last_event_id": "0-0"})

            def do_GET(self) -> None:
                outer.asked_from.append(self.headers.get("last-event-id"))
                chunks, end = streams[min(len(outer.asked_from), len(streams)) - 1]
                if end.isdigit():
                    self._json(int(end), {"title": "Not now", "detail": "Later.", "code": "database-away"})
                    return
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                for chunk in chunks:
                    self.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
                    self.wfile.flush()
                if end == "whole":
                    self.wfile.write(b"0\r\n\r\n")
                else:
                    self.close_connection = True  # the last chunk never comes

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(*streams: tuple[list[bytes], str]) -> Server:
        started.append(Server(list(streams)))
        return started[-1]

    yield start
    for one in started:
        one.server.shutdown()
        one.server.server_close()


def asked(server: Server) -> tuple[ask.Answer, list[str], list[list[dict[str, Any]]]]:
    told: list[str] = []
    quoted: list[list[dict[str, Any]]] = []
    with Api(server.url, "rk_test") as api:
        answer = ask.ask(
            api, "What colour?", assistant="guide", on_evidence=quoted.append, on_sentence=lambda _, text: told.append(text)
        )
    return answer, told, quoted


def test_a_stream_that_is_cut_is_taken_up_after_the_last_event_seen(serve):
    half = EVENTS[3][: len(EVENTS[3]) // 2]  # an event whose end never came does not count
    server = serve(([EVENTS[1], EVENTS[2]], "cut"), ([half], "cut"), ([], "503"), ([EVENTS[3]], "whole"), ([EVENTS[4]], "whole"))
    answer, told, quoted = asked(server)
    assert server.asked_from == ["0-0", "2-0", "2-0", "2-0", "3-0"]
    assert told == [FIRST, SECOND] and quoted == [EVIDENCE] and server.posted == 1
    assert answer.as_json()["answer"] == f"{FIRST} {SECOND}\n\n{EVIDENCE[0]['text']}"


def test_what_a_snapshot_after_the_cut_shows_is_told_once_and_nothing_is_left_out(serve):
    running = event(3, "snapshot", {"messages": [message("running", FIRST)]})
    _, told, quoted = asked(serve(([EVENTS[1], EVENTS[2]], "cut"), ([running], "cut"), ([DONE], "whole")))
    assert told == [FIRST, SECOND] and quoted == [EVIDENCE]
    finished = event(4, "snapshot", {"messages": [message("done", f"{FIRST} {SECOND}")]})
    _, told, quoted = asked(serve(([finished], "whole")))
    assert told == [f"{FIRST} {SECOND}"] and quoted == [EVIDENCE]


def test_a_server_that_does_not_come_back_is_one_clear_line(serve, monkeypatch):
    monkeypatch.setattr(ask, "AWAY_SECONDS", 0.5)
    began = time.monotonic()
    with pytest.raises(Problem, match="does not answer properly"):
        asked(serve(([EVENTS[1]], "cut"), ([], "cut")))
    assert time.monotonic() - began < 5
    with pytest.raises(Problem, match="Nothing answers"), Api(f"http://127.0.0.1:{free_ports(1)[0]}", "rk_test") as api:
        ask.ask(api, "Anybody?", assistant="guide")


def test_a_refusal_for_good_is_not_asked_again(serve):
    server = serve(([], "404"))
    with pytest.raises(Problem, match="Not now"):
        asked(server)
    assert len(server.asked_from) == 1
