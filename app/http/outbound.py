"""The one client for HTTP requests whose target a user can choose: crawler, webhooks, sign-in providers.

A name is resolved once, its addresses are checked, and the connection goes to a checked address: what was checked is
what is connected to, so a name that changes its answer between the two (DNS rebinding) gains nothing. The check sits
below the connection pool, where every connection passes, redirects included; Host and TLS server name stay the URL's.

    async with Outbound.open(settings()) as outbound:
        page = await outbound.fetch("https://example.org/")
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import ssl
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urljoin, urlsplit

import httpcore
import httpx

from app.config import Settings, settings

PRODUCT = "Retort"
VERSION = "0.1"
URL_LENGTH = 2000
MAX_REDIRECTS = 5
MAX_BYTES = 5 * 1024 * 1024
TOTAL_SECONDS = 20.0
CONNECT_SECONDS = 5.0
RESOLVE_SECONDS = 5.0
# A server that sends nothing for so long has stopped talking, whatever is left of the total.
SILENCE_SECONDS = 10.0
# Deflate shrinks at most 1032 : 1; a page never comes near, a bomb does.
MAX_INFLATION = 200
REDIRECTS = (301, 302, 303, 307, 308)

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# Spelt out, since what Python's `ipaddress` calls global changes from release to release: the IANA special-purpose registries
# (RFC 6890), the retired 6to4 relay, multicast, and 168.63.129.16, the agent of one cloud's machines.
_SPECIAL = """0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 168.63.129.16/32 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24
    192.0.2.0/24 192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
    2001::/23 2001:db8::/32 3fff::/20"""
REFUSED = tuple(ipaddress.ip_network(network) for network in _SPECIAL.split())
UNICAST = ipaddress.ip_network("2000::/3")  # the only part of IPv6 that is given out (RFC 4291, section 2.4)
NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last 32 bits are an IPv4 address


class OutboundError(Exception):
    """A request that brought no answer. `code` is for programs, `detail` a sentence for the person who gave the address."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class TargetError(OutboundError):
    """The address itself is refused: `url-invalid`, `url-unresolvable` or `url-private`."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer, read whole."""

    url: str  # after redirects
    status: int
    headers: httpx.Headers
    body: bytes
    seconds: float


def is_public(address: IPAddress) -> bool:
    """Whether an address belongs to the public internet and hides no private one inside."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.scope_id or address not in UNICAST:
            return False
    return not any(address.version == network.version and address in network for network in REFUSED)


def parse_target(url: str) -> tuple[str, int]:
    """(host, port) of an http(s) URL. Raises TargetError `url-invalid`, saying what to write instead."""
    if not url or len(url) > URL_LENGTH or re.search(r"[\x00-\x20\x7f]", url):
        raise TargetError("url-invalid", f"Write a web address of at most {URL_LENGTH:,} characters, without spaces.")
    try:
        parts = urlsplit(url)
        parsed = httpx.URL(url)
        port = parts.port
        host = parsed.raw_host.decode("ascii")
    except (ValueError, httpx.InvalidURL, UnicodeError):
        raise TargetError("url-invalid", "This is no web address. Write one such as https://example.org/docs/.") from None
    if parts.scheme.lower() not in ("http", "https"):
        raise TargetError("url-invalid", "The address must begin with http:// or https://.")
    if "@" in parts.netloc:
        raise TargetError("url-invalid", "Leave user name and password out of the address.")
    host = host.strip("[]").rstrip(".").lower()
    if not host or len(host) > 253 or (port is not None and port == 0):
        raise TargetError("url-invalid", "The address names no host. Write one such as https://example.org/docs/.")
    return host, port or (443 if parts.scheme.lower() == "https" else 80)


async def resolve(host: str, port: int, allowed: Collection[str]) -> list[str]:
    """The addresses to connect to, all of them checked.

    A private address is refused unless exactly `host:port` is in `allowed`; one private address among several refuses
    them all. Raises TargetError `url-unresolvable`, `url-private`.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_SECONDS):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, TimeoutError, UnicodeError, OSError):
        raise TargetError(
            "url-unresolvable", f"No server was found under the name {host}. Check the spelling, or try again in a minute."
        ) from None
    addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    if not _is_allowed(host, port, allowed):
        for address in addresses:
            if not is_public(ipaddress.ip_address(address)):
                raise TargetError(
                    "url-private",
                    f"{host} is an address of a private network, which Retort does not read. "
                    f"To allow it, start Retort with RETORT_ALLOW_PRIVATE={_named(host)}:{port}.",
                )
    return addresses


def _named(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _is_allowed(host: str, port: int, allowed: Collection[str]) -> bool:
    return f"{_named(host)}:{port}" in {target.lower() for target in allowed}


async def check_target(url: str, *, allowed: Collection[str] | None = None) -> None:
    """Refuse an address that is no URL, does not resolve, or is private. `allowed` defaults to the settings' `allow_private`.

    Raises TargetError. A later request checks again: this is for telling a person at once.
    """
    host, port = parse_target(url)
    await resolve(host, port, settings().allow_private if allowed is None else allowed)


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections to checked addresses only. Every connection of the pool passes here."""

    def __init__(self, allowed: Collection[str]) -> None:
        self.allowed = allowed
        self.backend = cast(httpcore.AsyncNetworkBackend, httpcore.AnyIOBackend())  # typed as empty where anyio is optional

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 (the interface of httpcore)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to an address that was resolved and checked now; the name is never looked up again."""
        failure: Exception | None = None
        for address in (await resolve(host.strip("[]").rstrip(".").lower(), port, self.allowed))[:4]:
            try:
                return await self.backend.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure or httpcore.ConnectError(f"no address for {host}")

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refused: no website lives in a local socket."""
        raise TargetError("url-private", "Local sockets are not read.")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class PinnedTransport(httpx.AsyncHTTPTransport):
    """httpx's transport over a pool whose connections go to checked addresses."""

    def __init__(self, allowed: Collection[str]) -> None:
        super().__init__()
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=httpx.create_ssl_context(trust_env=False),
            max_connections=32,
            max_keepalive_connections=8,
            keepalive_expiry=5.0,
            network_backend=CheckedBackend(allowed),
        )


def user_agent(current: Settings) -> str:
    """Who asks, and where a site's owner finds out more: the assistant's own public address."""
    return f"{PRODUCT}/{VERSION} (+{current.visitor_url})"


Hop = Callable[[str], Awaitable[bool]]


class Outbound:
    """Fetches under limits of size, time and redirects. One a process; safe for concurrent use."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def open(cls, current: Settings) -> AsyncIterator[Outbound]:
        outbound = cls.create(current)
        try:
            yield outbound
        finally:
            await outbound.close()

    @classmethod
    def create(cls, current: Settings) -> Outbound:
        """An open client; the caller awaits `close()`."""
        client = httpx.AsyncClient(
            transport=PinnedTransport(current.allow_private),
            headers={"User-Agent": user_agent(current), "Accept-Encoding": "gzip, deflate"},
            timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
            follow_redirects=False,
            trust_env=False,
        )
        return cls(client)

    async def close(self) -> None:
        await self._client.aclose()

    async def fetch(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        total_seconds: float = TOTAL_SECONDS,
        max_bytes: int = MAX_BYTES,
        wanted: Callable[[httpx.Response], bool] | None = None,
        hop: Hop | None = None,
    ) -> Fetched:
        """GET `url`, following at most 5 redirects, and read at most `max_bytes` of inflated body.

        `wanted` sees the answer's head and says whether its body is worth reading (an unwanted body comes back empty).
        `hop` is asked before each redirect is followed; when it says no, the redirect itself is the answer.
        Raises TargetError, or OutboundError `timeout`, `too-large`, `redirect-loop`, `unreachable`, `tls-failed`, `garbled`.
        """
        started = time.monotonic()
        seen = {url}
        try:
            async with asyncio.timeout(total_seconds):
                while True:
                    response, body = await self._once(url, headers or {}, max_bytes, wanted)
                    target = _redirect_target(response, url)
                    if target is None or (hop is not None and not await hop(target)):
                        return Fetched(url, response.status_code, response.headers, body, time.monotonic() - started)
                    if target in seen or len(seen) > MAX_REDIRECTS:
                        raise OutboundError("redirect-loop", f"{url} redirects in a circle, or more than {MAX_REDIRECTS} times.")
                    seen.add(target)
                    url = target
        except TimeoutError:
            raise OutboundError("timeout", f"The server did not finish its answer within {total_seconds:.0f} s.") from None

    async def _once(
        self, url: str, headers: Mapping[str, str], max_bytes: int, wanted: Callable[[httpx.Response], bool] | None
    ) -> tuple[httpx.Response, bytes]:
        parse_target(url)
        try:
            async with self._client.stream("GET", url, headers=dict(headers)) as response:
                if response.status_code in REDIRECTS or (wanted is not None and not wanted(response)):
                    return response, b""
                return response, await _read(response, max_bytes)
        except httpx.TimeoutException:
            raise OutboundError("timeout", f"The server of {url} did not answer in time.") from None
        except httpx.ConnectError as error:
            raise _connection_failure(url, error) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpcore.ProtocolError, ssl.SSLError) as error:
            raise OutboundError(
                "garbled", f"The server of {url} broke off or answered with no HTTP ({type(error).__name__})."
            ) from None


def _connection_failure(url: str, error: Exception) -> OutboundError:
    chain: BaseException | None = error
    while chain is not None:
        if isinstance(chain, ssl.SSLError):
            return OutboundError("tls-failed", f"The certificate of {url} is not valid for it: {chain.reason or chain}.")
        chain = chain.__cause__ or chain.__context__
    return OutboundError("unreachable", f"The server of {url} does not accept connections. Is the site up?")


def _redirect_target(response: httpx.Response, url: str) -> str | None:
    location = response.headers.get("location")
    if response.status_code not in REDIRECTS or not location:
        return None
    target = urljoin(url, location.strip()).partition("#")[0]
    parse_target(target)
    return target


async def _read(response: httpx.Response, max_bytes: int) -> bytes:
    """The body, inflated by no more than `max_bytes` at any moment, so that a bomb costs nothing."""
    length = response.headers.get("content-length", "")
    if length.isdigit() and int(length) > max_bytes:
        raise _too_large(max_bytes)
    encoding = response.headers.get("content-encoding", "").strip().lower()
    inflate: Callable[[bytes, int], bytes] | None = None
    if encoding in ("gzip", "x-gzip", "deflate"):
        inflate = Inflater(encoding)
    elif encoding not in ("", "identity"):
        raise OutboundError("garbled", f"The server sent an encoding that was not asked for ({encoding[:40]}).")
    body = bytearray()
    raw = 0
    async for chunk in response.aiter_raw(64 * 1024):
        raw += len(chunk)
        body += inflate(chunk, max_bytes + 1 - len(body)) if inflate else chunk
        if len(body) > max_bytes or raw > max_bytes:
            raise _too_large(max_bytes)
        if raw > 1024 and len(body) > raw * MAX_INFLATION:
            raise OutboundError("too-large", "The page inflates far beyond what it sends. It was not read.")
    return bytes(body)


def _too_large(max_bytes: int) -> OutboundError:
    return OutboundError("too-large", f"The page is larger than {max_bytes / 1024 / 1024:.0f} MB. Only smaller ones are read.")


class Inflater:
    """Inflates gzip or deflate piece by piece, never more than asked for."""

    def __init__(self, encoding: str) -> None:
        self._deflate = encoding == "deflate"
        self._stream = zlib.decompressobj(zlib.MAX_WBITS if self._deflate else zlib.MAX_WBITS | 16)
        self._begun = False

    def __call__(self, chunk: bytes, limit: int) -> bytes:
        try:
            try:
                out = self._stream.decompress(chunk, max(limit, 1))
            except zlib.error:
                # Some servers send deflate without its zlib header (RFC 9110, section 8.4.1.2).
                if not self._deflate or self._begun:
                    raise
                self._stream = zlib.decompressobj(-zlib.MAX_WBITS)
                out = self._stream.decompress(chunk, max(limit, 1))
        except zlib.error:
            raise OutboundError("garbled", "The page arrived damaged: it does not inflate.") from None
        self._begun = True
        return out
