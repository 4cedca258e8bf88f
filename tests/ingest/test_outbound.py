"""The one outbound client: what it refuses, pins and limits."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import socket
import ssl
import subprocess
import sys
import time
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from app.config import Settings
from app.http.outbound import Inflater, Outbound, OutboundError, TargetError, check_target, is_public, parse_target
from tests.ingest.crawled_site import Reply, Website, page

_PRIVATE = """127.0.0.1 127.8.8.8 0.0.0.0 10.1.2.3 172.16.0.1 172.31.255.255 192.168.0.1 169.254.169.254 100.64.0.1
    100.100.100.200 198.18.0.1 192.0.0.8 192.0.2.1 224.0.0.1 240.0.0.1 255.255.255.255 168.63.129.16 192.88.99.1 ::1 ::
    ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 fe80::1 fec0::1 fc00::1 fd00:ec2::254 ff02::1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe
    64:ff9b:1::1 2002:7f00:1:: 2002:a00:1:: 2001:0:1::1 2001:db8::1 100::1 fe80::1%eth0"""
PRIVATE = _PRIVATE.split()
_PUBLIC = "8.8.8.8 1.1.1.1 193.99.144.80 2606:4700:4700::1111 ::ffff:8.8.8.8 64:ff9b::808:808 2002:808:808::"
PUBLIC = _PUBLIC.split()


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    ["", "x", "example.org", "ftp://example.org/", "file:///etc/passwd", "gopher://127.0.0.1:6379/_x", "http://", "http:///x",
     "http://user:secret@example.org/", "http://exa mple.org/", "http://example.org/\r\nHost: x", "http://exa\x00mple.org",
     "http://[::1", "http://example.org:99999/", "http://example.org:0/", "javascript:alert(1)", "http://" + "a" * 3000,
     "http://xn--\ud800.org/"],
)  # fmt: skip
async def test_what_is_no_web_address_is_refused(url: str) -> None:
    with pytest.raises(TargetError) as refused:
        await check_target(url, allowed=())
    assert refused.value.code == "url-invalid" and refused.value.detail.endswith(".")


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1/", "http://localhost/", "http://2130706433/", "http://0x7f.1/", "http://127.1/", 
     "http://[::ffff:127.0.0.1]/", "https://[::1]:8443/", "http://LOCALHOST./"],
)  # fmt: skip
async def test_private_targets_are_refused_however_they_are_spelt(url: str) -> None:
    with pytest.raises(TargetError) as refused:
        await check_target(url, allowed=("127.0.0.1:81",))
    assert refused.value.code == "url-private" and "RETORT_ALLOW_PRIVATE" in refused.value.detail


async def test_a_name_that_does_not_resolve_is_told_apart() -> None:
    with pytest.raises(TargetError) as refused:
        await check_target("https://nowhere.invalid/", allowed=())
    assert refused.value.code == "url-unresolvable"


async def test_exactly_the_allowed_host_and_port_is_admitted() -> None:
    await check_target("http://127.0.0.1:8000/x", allowed=("127.0.0.1:8000",))
    await check_target("http://[::1]:8000/x", allowed=("[::1]:8000",))
    for url in ("http://127.0.0.1:8001/", "http://127.0.0.2:8000/", "http://localhost:8000/"):
        with pytest.raises(TargetError):
            await check_target(url, allowed=("127.0.0.1:8000",))


def test_a_host_is_named_without_its_decoration() -> None:
    assert parse_target("HTTPS://Example.ORG./x") == ("example.org", 443)
    assert parse_target("http://bücher.example/") == ("xn--bcher-kva.example", 80)


@pytest.fixture
async def outbound(settings_for: Callable[..., Settings], site: Website) -> AsyncIterator[Outbound]:
    async with Outbound.open(settings_for(site.host)) as opened:
        yield opened


async def failing(outbound: Outbound, url: str, **limits: Any) -> OutboundError:
    with pytest.raises(OutboundError) as failed:
        await outbound.fetch(url, **limits)
    return failed.value


async def test_a_page_is_read_with_our_own_user_agent(outbound: Outbound, site: Website) -> None:
    site["/"] = page("Home", "text")
    answer = await outbound.fetch(f"{site.url}/")
    assert answer.status == 200 and b"<h1" in answer.body and answer.url == f"{site.url}/"
    (agent,) = site.agents
    assert agent.startswith("Retort/0.1 (+http")


async def test_a_private_address_is_refused_at_the_connection_itself(
    settings_for: Callable[..., Settings], site: Website
) -> None:
    site["/"] = page("Secret", "text")
    async with Outbound.open(settings_for()) as outbound:
        assert (await failing(outbound, f"{site.url}/")).code == "url-private"
    assert not site.asked


async def test_a_redirect_to_a_private_address_is_refused(outbound: Outbound, site: Website) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0.2)
        port = other.getsockname()[1]
        for target in (f"http://127.0.0.1:{port}/", f"//localhost:{site.port}/", "http://169.254.169.254/latest/meta-data/"):
            site["/go"] = Reply(status=302, headers={"Location": target})
            assert (await failing(outbound, f"{site.url}/go")).code == "url-private"
        with pytest.raises(TimeoutError):
            other.accept()
    site["/go"] = Reply(status=302, headers={"Location": "file:///etc/passwd"})
    assert (await failing(outbound, f"{site.url}/go")).code == "url-invalid"


async def test_a_name_that_changes_its_address_gains_nothing(
    settings_for: Callable[..., Settings], site: Website, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the first answer is public, the next private. The connection has its own checked answer."""
    answers = [("93.184.215.14", site.port), ("127.0.0.1", site.port)]
    asked = 0
    real = asyncio.get_running_loop().getaddrinfo

    async def getaddrinfo(host: Any, port: Any, **options: Any) -> Any:
        nonlocal asked
        if host != "rebind.example":
            return await real(host, port, **options)
        asked += 1
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", answers[min(asked, 2) - 1])]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    site["/"] = page("Secret", "text")
    async with Outbound.open(settings_for()) as outbound:
        await check_target(f"http://rebind.example:{site.port}/", allowed=())
        assert (await failing(outbound, f"http://rebind.example:{site.port}/")).code == "url-private"
    assert asked == 2 and not site.asked


async def test_the_host_header_stays_the_name_while_the_address_is_pinned(
    settings_for: Callable[..., Settings], site: Website
) -> None:
    hosts: list[str] = []

    def answer(handler: Any) -> Reply:
        hosts.append(handler.headers["Host"])
        return page("Home", "text")

    site["/"] = answer
    async with Outbound.open(settings_for(f"localhost:{site.port}")) as outbound:
        await outbound.fetch(f"http://localhost:{site.port}/")
    assert hosts == [f"localhost:{site.port}"]


async def test_redirects_are_followed_five_times_and_circles_are_noticed(outbound: Outbound, site: Website) -> None:
    for number in range(7):
        site[f"/{number}"] = Reply(status=301, headers={"Location": f"/{number + 1}"})
    site["/7"] = page("End", "text")
    assert (await outbound.fetch(f"{site.url}/2")).url == f"{site.url}/7"
    assert (await failing(outbound, f"{site.url}/1")).code == "redirect-loop"
    site["/a"] = Reply(status=302, headers={"Location": "/b"})
    site["/b"] = Reply(status=302, headers={"Location": "/a"})
    assert (await failing(outbound, f"{site.url}/a")).code == "redirect-loop"
    assert site.asked["/a"] == 1


async def test_a_body_that_never_ends_is_cut_off(outbound: Outbound, site: Website) -> None:
    sent = 0

    def forever(handler: Any) -> None:
        nonlocal sent
        while not site.stop.is_set() and sent < 200_000_000:
            handler.wfile.write(b"x" * 65536)
            sent += 65536

    site["/"] = Reply(forever)
    assert (await failing(outbound, f"{site.url}/", max_bytes=300_000)).code == "too-large"
    assert sent < 50_000_000


async def test_a_body_that_trickles_is_cut_off_in_time(outbound: Outbound, site: Website) -> None:
    def trickle(handler: Any) -> None:
        while not site.stop.is_set():
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.05)

    site["/"] = Reply(trickle)
    began = time.monotonic()
    assert (await failing(outbound, f"{site.url}/", total_seconds=1.0)).code == "timeout"
    assert time.monotonic() - began < 3


async def test_a_declared_size_is_believed_when_it_is_too_large(outbound: Outbound, site: Website) -> None:
    site["/"] = Reply(b"x" * 5000)
    assert (await failing(outbound, f"{site.url}/", max_bytes=1000)).code == "too-large"


async def test_a_bomb_is_not_inflated(outbound: Outbound, site: Website) -> None:
    site["/"] = Reply(gzip.compress(bytes(50_000_000)), headers={"Content-Encoding": "gzip"})
    assert (await failing(outbound, f"{site.url}/", max_bytes=10_000_000)).code == "too-large"
    site["/raw"] = Reply(zlib.compress(b"plain text " * 50)[2:-4], headers={"Content-Encoding": "deflate"})
    assert (await outbound.fetch(f"{site.url}/raw")).body == b"plain text " * 50
    site["/bad"] = Reply(b"this is not gzip at all", headers={"Content-Encoding": "gzip"})
    assert (await failing(outbound, f"{site.url}/bad")).code == "garbled"


def test_an_inflater_gives_no_more_than_it_is_asked_for() -> None:
    assert len(Inflater("gzip")(gzip.compress(bytes(1_000_000)), 1000)) == 1000


async def test_a_server_that_is_down_or_speaks_no_http_is_told_apart(
    outbound: Outbound, site: Website, settings_for: Any
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]

        def gibberish() -> None:
            connection, _ = silent.accept()
            connection.recv(1000)
            connection.sendall(b"220 mail ready\r\n")
            connection.close()

        async with Outbound.open(settings_for(f"127.0.0.1:{port}")) as other:
            answering = asyncio.create_task(asyncio.to_thread(gibberish))
            assert (await failing(other, f"http://127.0.0.1:{port}/")).code == "garbled"
            await answering
    async with Outbound.open(settings_for(f"127.0.0.1:{port}")) as other:
        assert (await failing(other, f"http://127.0.0.1:{port}/")).code == "unreachable"


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path, settings_for: Any) -> None:
    key, certificate = make_certificate(tmp_path, "other.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    try:
        async with Outbound.open(settings_for(f"localhost:{port}")) as outbound:
            assert (await failing(outbound, f"https://localhost:{port}/")).code == "tls-failed"
    finally:
        server.close()


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    key_path, certificate_path = folder / "key.pem", folder / "cert.pem"
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return key_path, certificate_path


def test_the_web_application_gets_the_client_without_torch_or_workers() -> None:
    code = "import sys, app.http.outbound; print([m for m in ('torch', 'workers', 'numpy', 'celery') if m in sys.modules])"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=Path(__file__).parents[2], timeout=60
    )
    assert ended.stdout.strip() == "[]", ended.stderr
