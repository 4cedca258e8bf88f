"""From bytes to blocks: encodings, what is content, headings and their places."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.ingest.decode import decode
from workers.ingest.extract import extract

URL = "https://example.org/docs/page.html"


def read(body: str, head: str = "<title>Page</title>"):
    return extract(f"<!doctype html><html><head>{head}</head><body>{body}</body></html>", URL)


def texts(body: str, head: str = "<title>Page</title>") -> list[str]:
    return [block.text for block in read(body, head).blocks]


EURO = "<p>Größe und Maß: 5 €</p>"
GERMAN = "<meta charset=utf-8><p>Größe und Maß: 5 €</p>"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        ("<p>Größe und Maß: 5 €</p>".encode(), "text/html; charset=utf-8"),
        ("<p>Größe und Maß: 5 €</p>".encode("cp1252"), "text/html; charset=ISO-8859-1"),
        ("<p>Größe und Maß: 5 €</p>".encode("cp1252"), 'text/html; charset="windows-1252"'),
        (b'<meta http-equiv="Content-Type" content="text/html; charset=iso-8859-15">' + EURO.encode("iso-8859-15"), "text/html"),
        ("<p>Größe und Maß: 5 €</p>".encode("utf-16"), "text/html"),
        (b"\xef\xbb\xbf" + "<p>Größe und Maß: 5 €</p>".encode(), "text/html; charset=latin1"),
        # A server that says one thing while the page is plainly another.
        ("<p>Größe und Maß: 5 €</p>".encode("cp1252"), "text/html; charset=utf-8"),
        (GERMAN.encode("cp1252"), "text/html"),
        ("<p>Größe und Maß: 5 €</p>".encode(), "text/html; charset=no-such-thing"),
        ("<p>Größe und Maß: 5 €</p>".encode(), "text/html; charset=base64"),
    ],
)  # fmt: skip
def test_text_is_read_in_the_encoding_that_it_is_written_in(body: bytes, content_type: str) -> None:
    assert extract(decode(body, content_type), URL).blocks[0].text == "Größe und Maß: 5 €"


@given(st.binary(max_size=300), st.sampled_from(["", "text/html; charset=utf-16", "x; charset=shift_jis", "charset=\u212a"]))
@settings(max_examples=200, deadline=None)
def test_any_bytes_become_text_that_postgresql_stores(body: bytes, content_type: str) -> None:
    page = extract(decode(body, content_type), URL)
    for block in page.blocks:
        assert block.text.strip() and "\x00" not in block.text
        block.text.encode()


def test_navigation_banners_and_footers_are_left_out() -> None:
    body = """
    <div id="banner"><a href="/get">Download the ebook</a></div>
    <div class="cookie-consent">We use cookies. <button>Accept</button></div>
    <header><h1>Site name</h1><nav><a href="/">Home</a></nav></header>
    <div class="breadcrumbs"><a href="/">Home</a> › <a href="/d">Docs</a></div>
    <ul class="docnav top"><li><a href="p">Prev</a></li><li>The handbook</li><li><a href="n">Next</a></li></ul>
    <main><h1>Pumps</h1><p>A pump moves water.</p>
    <aside class="sidebar"><p>Tip: prime the pump before its first use of the year.</p></aside>
    <div class="toc"><ul><li><a href="#a">One</a></li><li><a href="#b">Two</a></li></ul></div>
    <p hidden>Hidden words</p><p style="display: none">Not shown</p><span class="sr-only">For readers</span>
    <p>It needs oil<sup><a href="#fn1">[1]</a></sup> twice a year.</p><div class="share">Share this</div></main>
    <aside class="related"><a href="/x">Related one</a> <a href="/y">Related two</a></aside><footer>Copyright 2026</footer>
    <script>var secret = 1</script><noscript>Turn on scripts</noscript>"""
    assert texts(body) == [
        "A pump moves water.",
        "Tip: prime the pump before its first use of the year.",
        "It needs oil twice a year.",
    ]


def test_a_page_without_named_content_loses_its_menus_alone() -> None:
    menu = "".join(f'<li><a href="/{number}">Entry number {number}</a></li>' for number in range(9))
    body = (
        f"<div><ul>{menu}</ul></div><div><div><p>The pump moves water uphill, and it does so by day and by night.</p></div></div>"
    )
    assert texts(body) == ["The pump moves water uphill, and it does so by day and by night."]


def test_a_whole_page_inside_a_form_or_a_layout_table_is_read() -> None:
    table = "<table><tr><td><h2 id=x>Oil</h2><p>Change it yearly.</p></td><td><ul><li>one</li></ul></td></tr></table>"
    body = f"<form>{table}<input></form>"
    page = read(body)
    assert [(b.text, b.heading_path, b.fragment) for b in page.blocks] == [
        ("Change it yearly.", ("Oil",), "x"),
        ("one", ("Oil",), "x"),
    ]


def test_headings_form_a_path_and_keep_the_place_that_shows_them() -> None:
    body = """<main><h1 id="top">Pumps</h1><p>a b</p>
    <section id="oil"><h2>Oil <a class="headerlink" href="#oil">¶</a></h2><p>c d</p>
    <h3><a name="kinds"></a>Kinds of <code>oil</code></h3><p>e f</p></section>
    <a id="water"></a><h2>Water</h2><p>g h</p><h4>Deep</h4><p>i j</p>
    <div class="section"><div class="titlepage">
    <div><h2 class="title"><a id="book"></a>Book</h2></div></div><p>k l</p></div></main>"""
    assert [(b.text, b.heading_path, b.fragment) for b in read(body, "<title>Pumps - Example</title>").blocks] == [
        ("a b", (), "top"),
        ("c d", ("Oil",), "oil"),
        ("e f", ("Oil", "Kinds of oil"), "kinds"),
        ("g h", ("Water",), "water"),
        ("i j", ("Water", "Deep"), "water"),
        ("k l", ("Book",), "book"),
    ]


@pytest.mark.parametrize(
    ("head", "body", "title"),
    [
        ("<title>6.8. Keeping Up to Date</title>", "<h2>6.8. Keeping Up to Date</h2><p>x</p>", "6.8. Keeping Up to Date"),
        ("<title>Oil | Pumps | Example</title>", "<h1>Oil</h1><p>x</p>", "Oil"),
        ('<title>Oil — Example</title><meta property="og:site_name" content="Example">', "<p>x</p>", "Oil"),
        ("<title>Home</title>", "<h1>Pumps for all</h1><p>x</p>", "Pumps for all"),
        ("", "<p>x</p>", "page.html"),
        ("<title>\n  Oil &amp;\n water </title>", "<p>x</p>", "Oil & water"),
    ],
)  # fmt: skip
def test_a_page_is_called_by_its_own_name(head: str, body: str, title: str) -> None:
    assert read(body, head).title == title


def test_white_space_is_as_a_browser_shows_it() -> None:
    body = "<p>One\n\t two&nbsp;three<br>four soft&shy;hyphen zero&#8203;width <b>bo</b>ld<i>\n</i>end</p><p> </p>"
    body += "<div>loose<p>inner</p>tail</div>"
    assert texts(body) == ["One two three\nfour softhyphen zerowidth bold end", "loose", "inner", "tail"]


def test_lists_definitions_and_code_keep_their_shape() -> None:
    body = """<ul><li>first</li><li>second<ul><li>inner</li></ul></li></ul>
    <dl><dt>deb</dt><dd>binary packages</dd><dt>How often?</dt><dd><p>Every day.</p><p>At noon.</p></dd></dl>
    <pre><code>$ apt update

    indented = "yes"
</code></pre>"""
    assert texts(body) == [
        "first", "second", "inner", "deb: binary packages", "How often? Every day.", "At noon.",
        '$ apt update\n    indented = "yes"',
    ]  # fmt: skip


def test_a_table_becomes_one_line_a_row() -> None:
    body = """<table><caption>Packages</caption><thead><tr><th>Name</th><th>Version</th><th>Size</th></tr></thead>
    <tr><td>apt</td><td>2.6</td><td>4 MB</td></tr><tr><td>dpkg</td><td></td><td>2 MB</td></tr></table>
    <table><tr><th>Opens</th><td>nine</td></tr><tr><th>Closes</th><td>five</td></tr></table>"""
    assert texts(body) == [
        "Packages",
        "apt: Version: 2.6; Size: 4 MB",
        "dpkg: Size: 2 MB",
        "Opens: nine",
        "Closes: five",
    ]


def test_what_robots_may_not_have_is_known() -> None:
    assert read("<p>x</p>", '<meta name="ROBOTS" content="NoIndex, follow">').noindex
    page = read('<a href="/x">x</a>', '<meta name="robots" content="none">')
    assert page.noindex and page.nofollow and page.links == []
    assert read("<p>x</p>", '<meta http-equiv="refresh" content="0; url=/next">').refresh == "https://example.org/next"


def test_links_are_whole_and_only_those_to_pages_of_the_web() -> None:
    body = """<a href="a.html#part">a</a><a href="/b?x=1">b</a><a href="mailto:x@example.org">m</a><a href="javascript:x()">j</a>
    <a href="c" rel="nofollow">c</a><a href="#top">t</a><a href="http://[bad">bad</a><a href="//other.example/">o</a>"""
    assert read(body, '<base href="/docs/v2/">').links == [
        "https://example.org/docs/v2/a.html",
        "https://example.org/b?x=1",
        "https://other.example/",
    ]


def test_the_same_content_has_the_same_hash_whatever_surrounds_it() -> None:
    one = read("<nav><a href=/1>visited 1 time</a></nav><main><h1>A</h1><p>text</p></main>")
    two = read("<nav><a href=/2>visited 2 times</a></nav><main><h1>A</h1><p>text</p></main>")
    assert one.content_hash == two.content_hash != read("<main><h1>A</h1><p>text!</p></main>").content_hash


def test_monstrous_pages_are_read_in_time() -> None:
    began = time.monotonic()
    deep = read("<div>" * 20_000 + "<p>The bottom of the page has a sentence.</p>" + "</div>" * 20_000)
    assert deep.blocks[-1].text == "The bottom of the page has a sentence."
    wide = read('<div class="nav">' * 300 + '<a href="x">word</a> text ' * 5_000 + "</div>" * 300)
    assert wide.title == "Page"
    long = read("<p>" + "word " * 200_000 + "</p>" + "<p>after</p>")
    assert long.cut and len(long.blocks) == 1 and long.blocks[0].text.endswith("word word")
    assert time.monotonic() - began < 8


@given(st.text(alphabet="<>/=\"' abpdivulh1-!&;#x\n", max_size=400))
@settings(max_examples=300, deadline=None)
def test_odd_markup_never_breaks_the_reader(html: str) -> None:
    page = extract(html, URL)
    assert all(block.text.strip() for block in page.blocks)
