"""Pages, files and headers of both origins, as a browser and a crawler meet them."""

from __future__ import annotations

import gzip
import re
from urllib.parse import urljoin
from xml.etree import ElementTree

import msgspec
import pytest

from app.config import STATIC
from app.http.guide import Guide
from tests.api.conftest import problem

built = pytest.mark.skipif(not (STATIC / "widget" / "manifest.json").exists(), reason="the front end is not built: make frontend")


def directives(response) -> dict[str, list[str]]:
    parts = [part.split() for part in response.headers["content-security-policy"].split(";")]
    return {part[0]: part[1:] for part in parts if part}


@pytest.mark.parametrize("path", ["/health/live", "/nothing", "/widget/v1/session", "/guide-docs/", "/status"])
async def test_every_response_carries_the_security_headers(visitors, path):
    answer = await visitors.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "strict-origin-when-cross-origin"
    assert directives(answer)["default-src"] == ["'none'"] and directives(answer)["frame-ancestors"] == ["'none'"]
    assert re.fullmatch(r"[A-Za-z0-9-]{8,}", answer.headers["x-request-id"])
    assert "server" not in answer.headers


async def test_a_request_id_is_passed_on_if_it_looks_like_one(visitors):
    assert (await visitors.get("/health/live", headers={"x-request-id": "abc-12345678"})).headers[
        "x-request-id"
    ] == "abc-12345678"
    forged = await visitors.get("/health/live", headers={"x-request-id": "x y<script>"})
    assert forged.headers["x-request-id"] != "x y<script>"


async def test_errors_of_the_router_are_problems_too(visitors, members):
    problem(await visitors.get("/no/such/page"), 404, "not-found")
    problem(await members.get("/api/v1/no-such"), 404, "not-found")
    problem(await visitors.put("/widget/v1/session"), 405, "method-not-allowed")
    problem(await visitors.get("/api/v1/me"), 404, "not-found")
    problem(await members.post("/widget/v1/session", json={"assistant": "x"}), 405, "method-not-allowed")


@built
async def test_the_frame_may_be_embedded_by_allowed_origins_only(visitors, tenant_factory):
    tenant = await tenant_factory(allowed_origins=["https://shop.example.org"], name='Guide </script><b a="')
    for path in (f"/widget/frame/{tenant.slug}", f"/a/{tenant.slug}"):
        page = await visitors.get(path)
        assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
        policy = directives(page)
        assert policy["frame-ancestors"] == ["'self'", "https://shop.example.org"]
        assert policy["script-src"] == ["'self'"] and "'unsafe-inline'" not in policy["style-src"]
        config = re.search(r'<script type="application/json" id="retort-config">(.*?)</script>', page.text, re.DOTALL)
        told = msgspec.json.decode(config.group(1))
        assert told["assistant"]["name"] == 'Guide </script><b a="' and told["api"] == "/widget/v1"
        assert "<b a=" not in page.text
        for address in re.findall(r'(?:src|href)="(/assets/[^"]+)"', page.text):
            file = await visitors.get(address)
            assert file.status_code == 200 and "immutable" in file.headers["cache-control"]
    problem(await visitors.get("/widget/frame/no-such"), 404, "assistant-unknown")
    drawn = await visitors.get("/a/no-such", headers={"accept": "text/html"})
    assert drawn.status_code == 404 and drawn.headers["content-type"].startswith("text/html")
    assert "There is no such assistant" in drawn.text and directives(drawn)["frame-ancestors"] == ["'none'"]


async def test_another_name_of_the_same_machine_leads_to_the_configured_one(web):
    import httpx

    port = web.settings.visitor_port
    async with httpx.AsyncClient(base_url=f"http://localhost:{port}") as client:
        moved = await client.get("/a/guide?x=1", headers={"accept": "text/html"})
        assert moved.status_code == 307 and moved.headers["location"] == f"{web.visitor_url}/a/guide?x=1"
        assert (await client.get("/health/ready")).status_code == 200  # a container's own check
        elsewhere = await client.get("/status", headers={"host": f"evil.example:{port}", "accept": "text/html"})
        assert elsewhere.status_code == 200 and "location" not in elsewhere.headers


@built
async def test_the_demo_page_loads_the_widget(visitors, web, tenant):
    page = await visitors.get(f"/demo/{tenant.slug}")
    assert f'src="{web.visitor_url}/widget.js" data-assistant="{tenant.slug}"' in page.text
    assert any(source.startswith("'sha256-") for source in directives(page)["style-src"])


@built
async def test_the_loader_is_small_short_lived_and_open_to_every_page(visitors):
    loader = await visitors.get("/widget.js")
    assert loader.headers["access-control-allow-origin"] == "*"
    assert loader.headers["cross-origin-resource-policy"] == "cross-origin"
    assert loader.headers["content-encoding"] == "gzip" and "max-age=300" in loader.headers["cache-control"]
    assert len(gzip.compress(loader.content, 9)) <= 5 * 1024
    same = await visitors.get("/widget.js", headers={"if-none-match": loader.headers["etag"]})
    assert same.status_code == 304 and same.content == b""
    plain = await visitors.get("/widget.js", headers={"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers and plain.content == loader.content


async def test_files_outside_the_bundle_are_not_served(visitors, members):
    for path in ("..%2fmanifest.json", "manifest.json", "..%2f..%2fconfig.py", "nothing.js", "%2e%2e"):
        for client, bundle in ((visitors, "widget"), (members, "dashboard")):
            assert (await client.get(f"/assets/{bundle}/{path}")).status_code == 404
    assert (await visitors.get("/assets/dashboard/main.js")).status_code == 404


@built
async def test_the_dashboard_draws_every_address_but_never_in_a_frame(members, web):
    browser = {"accept": "text/html"}
    for path in ("/", "/sign-in", "/content/0190-abc"):
        page = await members.get(path, headers=browser)
        assert page.status_code == 200 and directives(page)["frame-ancestors"] == ["'none'"]
        assert web.visitor_url in page.text and page.headers["referrer-policy"] == "same-origin"
    problem(await members.get("/api/v1/typo", headers=browser), 404, "not-found")


async def test_the_guide_is_a_website_that_a_crawler_can_read(visitors, web):
    index = await visitors.get("/guide-docs/")
    assert index.status_code == 200
    robots = (await visitors.get("/robots.txt")).text
    sitemap = re.search(r"Sitemap: (\S+)", robots).group(1)
    tree = ElementTree.fromstring((await visitors.get(sitemap)).text)
    pages = [element.text for element in tree.iter("{http://www.sitemaps.org/schemas/sitemap/0.9}loc")]
    shown = []
    assert len(pages) >= 3 and all(page.startswith(f"{web.visitor_url}/guide-docs/") for page in pages)
    for address in pages:
        page = await visitors.get(address)
        assert page.status_code == 200 and page.text.count("<h1") == 1 and '<meta name="robots"' not in page.text
        assert re.search(r'<h2 id="[\w-]+"', page.text)
        for link in re.findall(r'href="(/guide-docs/[^"#]*)', page.text):
            assert (await visitors.get(link)).status_code == 200, f"{address} links to {link}"
        for source in re.findall(r'<img src="([^"]*)"', page.text):
            picture = await visitors.get(urljoin(address, source))
            assert picture.status_code == 200, f"{address} shows {source}"
            assert picture.headers["content-type"].startswith("image/") and directives(picture)["default-src"] == ["'none'"]
            shown.append(source)
    assert "images/bench-turns.svg" in shown
    for missing in ("no-such", "images/no-such.svg", "images/..%2Frun-it.md", "images/model.md"):
        problem(await visitors.get(f"/guide-docs/{missing}"), 404, "not-found")


def test_links_between_pages_of_the_guide_lead_somewhere(tmp_path):
    (tmp_path / "a.md").write_text(
        "# A\n\nSee [b](b.md#two), [out](../README.md) and [web](https://e.example/).\n\n## Two `x`\n\n## Two x\n"
    )
    (tmp_path / "b.md").write_text("# B\n\n<script>alert(1)</script>\n\n| a |\n|---|\n| 1 |\n")
    pages = Guide(tmp_path).pages()
    assert '<a href="/guide-docs/b#two">b</a>, out and <a href="https://e.example/">web</a>' in pages["a"].body
    assert 'id="two-x"' in pages["a"].body and 'id="two-x-1"' in pages["a"].body
    assert "<script>" not in pages["b"].body and "<table>" in pages["b"].body


async def test_the_reference_needs_nothing_from_elsewhere(members):
    page = await members.get("/docs")
    assert page.status_code == 200 and "/api/v1/sources" in page.text and "<script" not in page.text
    assert not re.findall(r'(?:src|href)="https?://', page.text)
    described = (await members.get("/schema/openapi.json")).json()
    assert described["openapi"].startswith("3.1") and "/widget/v1/session" in described["paths"]
