"""The REST API as programs use it (docs/api.md), for `retort add`, `retort ask` and `retort up` itself."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from app.operate import Problem
from app.operate.checks import data_folder
from app.operate.supervisor import read_record

KEY_FILE = "api-key"
DEFAULT_URL = "http://127.0.0.1:8461"
TIMEOUT = httpx.Timeout(30.0, connect=5.0)
# Comments arrive every 15 s, so a stream that is silent for longer is broken.
STREAM_TIMEOUT = httpx.Timeout(45.0, connect=5.0)


class ApiProblem(Problem):
    """The API refused; `code` is its stable name, `status` the HTTP status."""

    def __init__(self, message: str, code: str, status: int) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class Unreachable(Problem):
    """No answer, or one that broke off: the server may be back in a moment."""


@dataclass(frozen=True, slots=True)
class Event:
    id: str
    name: str
    data: dict[str, Any]


class Api:
    """One connection to the dashboard origin of `url`, with an API key."""

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/")
        self._client = httpx.Client(
            base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=TIMEOUT, trust_env=False
        )

    def __enter__(self) -> Api:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._client.close()

    def get(self, path: str, **query: object) -> Any:
        return self._call("GET", path, query=query)

    def post(self, path: str, body: Mapping[str, object]) -> Any:
        return self._call("POST", path, body=body)

    def delete(self, path: str) -> None:
        self._call("DELETE", path)

    def pages(self, path: str, **query: object) -> Iterator[dict[str, Any]]:
        """Every item of a cursor-paged list."""
        cursor: str | None = None
        while True:
            page = self.get(path, limit=200, **query, **({"cursor": cursor} if cursor else {}))
            yield from page["items"]
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def events(self, path: str, last_event_id: str | None = None) -> Iterator[Event]:
        """Server-sent events until the server ends the stream (WHATWG HTML, section 9.2).

        Raises Unreachable when it breaks off, ApiProblem when it is refused.
        """
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last_event_id} if last_event_id else {})
        try:
            with self._client.stream("GET", path, headers=headers, timeout=STREAM_TIMEOUT) as response:
                if response.status_code >= 400:
                    response.read()
                    raise _refusal(response)
                yield from _parse_events(response.iter_lines())
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    def _call(self, method: str, path: str, *, query: Mapping[str, object] | None = None, body: object = None) -> Any:
        try:
            response = self._client.request(
                method, path, params={k: str(v) for k, v in (query or {}).items()}, json=body if method != "GET" else None
            )
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        if response.status_code >= 400:
            raise _refusal(response)
        return response.json() if response.content else None

    def _unreachable(self, error: httpx.HTTPError) -> Unreachable:
        if isinstance(error, httpx.ConnectError):
            return Unreachable(f"Nothing answers at {self.url}; start Retort with `make up`, or say where it is with RETORT_URL.")
        return Unreachable(f"{self.url} does not answer properly ({type(error).__name__}); see `retort doctor`.")


def connect(environment: Mapping[str, str] | None = None) -> Api:
    """The API of RETORT_URL with RETORT_API_KEY, or of the `retort up` of this data folder. Raises Problem without a key."""
    env = os.environ if environment is None else environment
    data = data_folder(env)
    url = env.get("RETORT_URL") or str(read_record(data).get("api") or DEFAULT_URL)
    key = env.get("RETORT_API_KEY") or _read_key(data)
    if not key:
        raise Problem(
            f"There is no API key in {data / KEY_FILE}; start Retort with `make up`, or set RETORT_URL and RETORT_API_KEY."
        )
    if not key.isascii() or not key.isprintable():
        raise Problem("RETORT_API_KEY is no API key; one begins with rk_ and is printed by `retort key create`.")
    try:
        return Api(url, key)
    except (httpx.InvalidURL, UnicodeError):
        raise Problem(f"RETORT_URL is no address: {url!a}; write for example http://127.0.0.1:8461.") from None


def _read_key(data: Path) -> str:
    try:
        return (data / KEY_FILE).read_text().strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise Problem(f"{data / KEY_FILE} cannot be read ({error.strerror}); run as its owner, or set RETORT_API_KEY.") from None


def _refusal(response: httpx.Response) -> ApiProblem:
    """An RFC 9457 problem document in one line."""
    try:
        problem = response.json()
        title, detail, code = problem["title"], problem.get("detail") or "", problem.get("code", "")
    except (ValueError, KeyError, TypeError):
        return ApiProblem(
            f"{response.request.url} answered {response.status_code}; see `retort doctor`.", "", response.status_code
        )
    text = f"{title.rstrip('.')}. {detail}".strip()
    if response.status_code == 401:
        text += " The key comes from RETORT_API_KEY or the data folder's api-key."
    return ApiProblem(" ".join(text.split()), str(code), response.status_code)


def _parse_events(lines: Iterator[str]) -> Iterator[Event]:
    name, identity, data = "message", "", []
    for line in lines:
        if not line:
            if data:
                yield Event(identity, name, json.loads("\n".join(data)))
            name, data = "message", []
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            name = value
        elif field == "data":
            data.append(value)
        elif field == "id":
            identity = value
