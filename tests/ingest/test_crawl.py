"""A whole source: what is found, what is read, what is not and why."""

from __future__ import annotations

import gzip
from itertools import pairwise

import numpy as np
import pytest
from sqlalchemy import text

from tests.ingest.crawled_site import Crawler, Reply, Website, page

TEXT = "The bell rings at noon, and the kitchen closes an hour later on every day of the week."


def other(name: str) -> str:
    return f"The {name} has its own page, which tells all that there is to know about the {name} in one sentence."


def sitemap(site: Website, *paths: str) -> Reply:
    urls = "".join(f"<url><loc>{site.url}{path}</loc></url>" for path in paths)
    xml = f'<?xml version="1.0"?><urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">{urls}</urlset>'
    return Reply(xml.encode(), kind="application/xml")


async def test_links_are_followed_within_the_site_and_every_page_says_what_became_of_it(crawler: Crawler, site: Website) -> None:
    links = (
        "/a",
        "/b?utm_source=x",
        "/missing",
        "/broken",
        "/private",
        "/quiet",
        "/file.pdf",
        "/style.css",
        "https://example.org/",
    )
    site["/robots.txt"] = Reply(b"User-agent: *\nDisallow: /private\n", kind="text/plain")
    site["/"] = page("Home", TEXT, links=links)
    site["/a"] = page("Alpha", other("alpha"), links=("/", "/deep"))
    site["/b"] = page("Beta", other("beta"))
    site["/deep"] = page("Deep", other("deep"))
    site["/broken"] = Reply(b"oops", 500)
    site["/quiet"] = page("Quiet", other("quiet"), head='<meta name="robots" content="noindex">')
    source_id = await crawler.add(f"{site.url}/")
    source = await crawler.read(source_id)
    documents = await crawler.documents(source_id)
    assert {path: (d.status, d.code) for path, d in documents.items()} == {
        "/": ("read", None),
        "/a": ("read", None),
        "/b": ("read", None),
        "/deep": ("read", None),
        "/missing": ("failed", "http-404"),
        "/broken": ("failed", "http-500"),
        "/private": ("skipped", "robots"),
        "/quiet": ("skipped", "noindex"),
        "/file.pdf": ("skipped", "not-html"),
    }
    assert all(d.reason for d in documents.values() if d.status != "read")
    assert documents["/deep"].depth == 2
    assert (source.status, source.title, source.reason) == ("read", "Home", None)
    assert "/private" not in site.asked and "/file.pdf" not in site.asked
    assert set(site.pages_asked().values()) == {1}, "a page was asked for twice"
    assert {agent.split(" ")[0] for agent in site.agents} == {"Retort/0.1"} and all("(+http" in agent for agent in site.agents)


async def test_passages_carry_text_place_and_vectors(crawler: Crawler, site: Website) -> None:
    site["/"] = page("Opening hours", TEXT, "It opens again at six in the evening.")
    source_id = await crawler.add(f"{site.url}/")
    await crawler.read(source_id)
    (passage,) = await crawler.passages(source_id)
    assert passage.title == "Opening hours" and passage.heading_path == [] and passage.fragment == "top"
    assert passage.text == f"{TEXT}\nIt opens again at six in the evening."
    assert [passage.text[start:end] for start, end in passage.sentences] == [TEXT, "It opens again at six in the evening."]
    async with crawler.db.transaction(crawler.tenant.workspace_id) as session:
        session.add(passage)
        await session.refresh(passage, ["sentence_vectors", "embedding"])
        vectors = np.frombuffer(passage.sentence_vectors, dtype=np.float16).reshape(2, 384).astype(np.float32)
        whole = np.array(passage.embedding, dtype=np.float32)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=2e-3) and abs(np.linalg.norm(whole) - 1) < 2e-3
    encoder = crawl_encoder(crawler)
    question = encoder.encode(["When does the kitchen shut?"])[0]
    assert question @ vectors[0] > 0.4 and question @ whole > 0.4


def crawl_encoder(crawler: Crawler):
    from workers.ingest.embed import load_encoder

    encoder, _ = load_encoder(crawler.process.settings.threads)
    return encoder


async def test_a_sitemap_decides_which_pages_are_read(crawler: Crawler, site: Website) -> None:
    site["/robots.txt"] = Reply(f"User-agent: *\nAllow: /\nSitemap: {site.url}/maps/index.xml\n".encode(), kind="text/plain")
    index = f"<sitemapindex><sitemap><loc>{site.url}/maps/sitemap-1.xml.gz</loc></sitemap></sitemapindex>"
    site["/maps/index.xml"] = Reply(index.encode(), kind="application/xml")
    inner = sitemap(site, "/docs/", "/docs/one", "/docs/one#part", "/blog/no")
    site["/maps/sitemap-1.xml.gz"] = Reply(gzip.compress(bytes(inner.body)), kind="application/gzip")
    site["/docs/"] = page("Docs", TEXT, links=("/docs/unlisted",))
    site["/docs/one"] = page("One", other("one"))
    site["/docs/unlisted"] = page("Unlisted", other("unlisted"))
    source_id = await crawler.add(f"{site.url}/docs/")
    await crawler.read(source_id)
    assert set(await crawler.documents(source_id)) == {"/docs/", "/docs/one"}


async def test_a_second_reading_asks_for_what_changed_alone(crawler: Crawler, site: Website) -> None:
    def tagged(name: str, tag: str):
        def answer(handler) -> Reply:
            if handler.headers.get("If-None-Match") == tag:
                return Reply(b"", 304)
            return Reply(bytes(page(name, other(name)).body), headers={"ETag": tag})

        return answer

    site["/"] = page("Home", TEXT, links=("/same", "/same-bytes", "/changes", "/goes", "/fails"))
    site["/same"] = tagged("same", '"1"')
    for name in ("same-bytes", "changes", "goes", "fails"):
        site[f"/{name}"] = page(name, other(name))
    source_id = await crawler.add(f"{site.url}/")
    await crawler.read(source_id)
    before = {p.url: p.id for p in await crawler.passages(source_id)}
    site["/changes"] = page("changes", "Everything about it is new now, from the first word to the very last one.")
    del site["/goes"]
    site["/fails"] = Reply(b"", 500)
    await crawler.again(source_id)
    source = await crawler.read(source_id)
    documents = await crawler.documents(source_id)
    assert {path: d.status for path, d in documents.items()} == {
        "/": "unchanged",
        "/same": "unchanged",
        "/same-bytes": "unchanged",
        "/changes": "read",
        "/goes": "failed",
        "/fails": "failed",
    }
    assert (documents["/same"].http_status, documents["/changes"].version, source.run) == (304, 2, 2)
    after = {p.url: p for p in await crawler.passages(source_id)}
    assert f"{site.url}/goes" not in after, "a page that is gone must not be found any more"
    assert after[f"{site.url}/fails"].id == before[f"{site.url}/fails"] and "stays in use" in (documents["/fails"].reason or "")
    assert after[f"{site.url}/same"].id == before[f"{site.url}/same"]
    assert "new now" in after[f"{site.url}/changes"].text
    # A page that stayed away is forgotten by the reading after, unless it is linked again.
    site["/"] = page("Home", TEXT, links=("/same", "/same-bytes", "/changes", "/fails"))
    await crawler.again(source_id)
    await crawler.read(source_id)
    assert "/goes" not in await crawler.documents(source_id)


async def test_the_same_text_twice_is_read_once(crawler: Crawler, site: Website) -> None:
    site["/"] = page("Home", TEXT, links=("/one", "/two"))
    site["/one"] = site["/two"] = page("Twin", other("twin"))
    source_id = await crawler.add(f"{site.url}/")
    await crawler.read(source_id)
    documents = await crawler.documents(source_id)
    assert sorted((documents[path].status, documents[path].code) for path in ("/one", "/two")) == [
        ("read", None),
        ("skipped", "duplicate"),
    ]
    assert len(await crawler.passages(source_id)) == 2


async def test_a_redirect_within_the_site_moves_the_page_and_one_to_a_known_page_is_not_followed(
    crawler: Crawler, site: Website
) -> None:
    site["/"] = page("Home", TEXT, links=("/old", "/alias", "/away", "/circle"))
    site["/old"] = Reply(status=301, headers={"Location": "/new"})
    site["/new"] = page("New", other("new place"))
    site["/alias"] = Reply(status=302, headers={"Location": "/"})
    site["/away"] = Reply(status=302, headers={"Location": "http://127.0.0.1:9/secret"})
    site["/circle"] = Reply(status=302, headers={"Location": "/circle?x=1"})
    site["/circle?x=1"] = Reply(status=302, headers={"Location": "/circle"})
    source_id = await crawler.add(f"{site.url}/")
    await crawler.read(source_id)
    documents = await crawler.documents(source_id)
    assert {path: (d.status, d.code) for path, d in documents.items()} == {
        "/": ("read", None),
        "/new": ("read", None),
        "/old": ("skipped", "redirected"),
        "/alias": ("skipped", "redirected"),
        "/away": ("skipped", "redirected"),
        "/circle": ("failed", "redirect-loop"),
    }
    assert site.asked["/"] == 1 and site.asked["/new"] == 1


@pytest.mark.parametrize(
    ("path", "reply", "code"),
    [
        ("/x", Reply(b"%PDF-1.7", kind="application/pdf"), "not-html"),
        ("/x", Reply(b"", 500), "http-500"),
        ("/x", Reply(b"<title>App</title><div id=root></div><script>boot()</script>"), "no-text"),
        ("/x", Reply(status=302, headers={"Location": "/x"}), "redirect-loop"),
        ("/x", Reply(status=302, headers={"Location": "http://169.254.169.254/latest"}), "redirected"),
    ],
)
async def test_a_source_whose_only_page_cannot_be_read_fails_and_says_why(
    crawler: Crawler, site: Website, path, reply, code
) -> None:
    site[path] = reply
    source_id = await crawler.add(f"{site.url}{path}")
    source = await crawler.read(source_id)
    document = (await crawler.documents(source_id))[path]
    assert (source.status, document.code) == ("failed", code)
    assert source.reason == f"No page could be read. {site.url}{path}: {document.reason}"
    assert source.finished_at is not None


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://10.0.0.1/", "private-address"),
        ("http://nowhere.invalid/", "url-unresolvable"),
        ("http://127.0.0.1:9/", "private-address"),
    ],
)
async def test_a_source_that_may_not_or_cannot_be_reached_fails_and_says_why(crawler: Crawler, url: str, code: str) -> None:
    source_id = await crawler.add(url)
    source = await crawler.read(source_id)
    (document,) = (await crawler.documents(source_id)).values()
    assert (source.status, document.code) == ("failed", code)


async def test_crawl_delay_is_kept_and_a_busy_server_is_asked_again(crawler: Crawler, site: Website) -> None:
    site["/robots.txt"] = Reply(b"User-agent: *\nCrawl-delay: 0.5\n", kind="text/plain")
    refusals = [Reply(b"", 503, {"Retry-After": "1"})]
    site["/"] = page("Home", TEXT, links=("/busy", "/always"))
    site["/busy"] = lambda _handler: refusals.pop() if refusals else page("Busy", other("busy"))
    site["/always"] = Reply(b"", 429, {"Retry-After": "1"})
    source_id = await crawler.add(f"{site.url}/")
    await crawler.read(source_id)
    documents = await crawler.documents(source_id)
    assert documents["/busy"].status == "read" and site.asked["/busy"] == 2
    assert documents["/always"].code == "http-429" and site.asked["/always"] == 3
    times = [at for path, at in site.times if path in ("/", "/busy", "/always")]
    assert min(later - earlier for earlier, later in pairwise(times)) > 0.45


async def test_a_site_whose_robots_txt_fails_is_left_alone(crawler: Crawler, site: Website) -> None:
    site["/robots.txt"] = Reply(b"", 503)
    site["/"] = page("Home", TEXT)
    source_id = await crawler.add(f"{site.url}/")
    source = await crawler.read(source_id)
    assert source.status == "failed" and "robots.txt answers 503" in (source.reason or "")
    assert "/" not in site.asked


async def test_a_stale_claim_writes_nothing(crawler: Crawler, site: Website, db) -> None:
    """A worker that was thought dead and comes back finds its page in other hands."""
    from sqlalchemy import text

    from workers.ingest import ledger
    from workers.ingest.fetch import Outcome
    from workers.ingest.index import settle

    site["/"] = page("Home", TEXT)
    source_id = await crawler.add(f"{site.url}/")
    workspace = crawler.tenant.workspace_id
    from workers.ingest import crawl

    await crawl.read_source(crawler.process, workspace, source_id)
    (document,) = (await crawler.documents(source_id)).values()
    async with db.transaction(workspace) as session:
        old = await ledger.claim_fetch(session, document.id)
        assert await ledger.claim_fetch(session, document.id) is None, "two tasks hold one page"
    async with db.transaction(workspace) as session:
        await session.execute(
            text("UPDATE documents SET claimed_at = now() - interval '1 hour' WHERE id = :id"), {"id": document.id}
        )
        assert await ledger.lock(session, source_id, old.run)
        assert await ledger.advance(session, source_id, old.run) == [(ledger.FETCH_DOCUMENT, document.id)]
        fresh = await ledger.claim_fetch(session, document.id)
    assert fresh.attempt == old.attempt + 1
    async with db.transaction(workspace) as session:
        assert await settle(session, old, Outcome("failed", "http-500", "late")) == []
    (document,) = (await crawler.documents(source_id)).values()
    assert (document.status, document.code) == ("fetching", None)


async def test_an_unfinished_page_says_what_it_waits_for(crawler: Crawler, site: Website) -> None:
    """Step by step through the ledger, as a member's list shows it."""
    from app.content.service import document_view, list_documents, source_views
    from workers.ingest import crawl, ledger

    site["/"] = page("Hours", TEXT)
    source_id = await crawler.add(f"{site.url}/")
    workspace = crawler.tenant.workspace_id
    await crawl.read_source(crawler.process, workspace, source_id)
    (document,) = (await crawler.documents(source_id)).values()

    async def shown(expected: str | None) -> tuple[str, str | None, int, int]:
        async with crawler.db.transaction(workspace) as session:
            ((row, passages),) = await list_documents(session, source_id, status=None, q=None, limit=5, after=None)
            view = document_view(row, passages)
            (source,) = await source_views(session, [await crawler.source(source_id)])
        assert view["step"] == expected
        return view["status"], view["step"], source["counts"]["fetching"], source["counts"]["fetched"]

    assert await shown("queued") == ("waiting", "queued", 0, 0)
    async with crawler.db.transaction(workspace) as session:
        await ledger.claim_fetch(session, document.id)
    assert await shown("fetching") == ("fetching", "fetching", 1, 0)
    async with crawler.db.transaction(workspace) as session:
        await session.execute(text("UPDATE documents SET status = 'waiting' WHERE id = :id"), {"id": document.id})
    await crawl.fetch_document(crawler.process, workspace, document.id)
    assert await shown("fetched") == ("fetching", "fetched", 0, 1)
    async with crawler.db.transaction(workspace) as session:
        await ledger.claim_embed(session, document.id)
    assert await shown("embedding") == ("fetching", "embedding", 0, 1)
    async with crawler.db.transaction(workspace) as session:
        await session.execute(text("UPDATE documents SET attempts = 0 WHERE id = :id"), {"id": document.id})
    await crawl.embed_document(crawler.process, workspace, document.id)
    assert await shown(None) == ("read", None, 0, 0)
