"""This project's own documentation as a website (`/guide-docs/`): what "Retort guide" reads, and what a newcomer reads."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from litestar import Request, Response, route
from litestar.params import Parameter
from litestar.response import Redirect
from markdown_it import MarkdownIt
from markdown_it.token import Token

from app.http import html as pages
from app.http.problems import not_found
from app.http.services import services_of

DOCS = Path(__file__).parents[2] / "docs"
BASE = "/guide-docs/"
LINK = re.compile(r"(?:\./)?([\w-]+)\.md(#[\w-]+)?")
NAME = re.compile(r"[A-Za-z0-9_-]{1,80}")
# The order of a first reading; whatever else docs/ holds follows by name.
ORDER = ("run-it", "embed-it", "content", "answers", "operate", "evaluate", "api", "model", "retnet", "training", "decisions")
PICTURE = re.compile(r"[A-Za-z0-9_-]{1,80}\.(svg|png)")
PICTURES = {"svg": "image/svg+xml", "png": "image/png"}
CACHE = "public, max-age=60"

markdown = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])


@dataclass(frozen=True, slots=True)
class GuidePage:
    name: str
    title: str
    summary: str
    body: str
    changed: datetime


def heading_id(text: str, taken: set[str]) -> str:
    """As GitHub makes it, so that links inside docs/ work in both places."""
    base = re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-") or "section"
    name, number = base, 1
    while name in taken:
        name, number = f"{base}-{number}", number + 1
    taken.add(name)
    return name


def _plain_text(token: Token) -> str:
    kinds = {"text", "code_inline"}
    return "".join(" " if c.type == "softbreak" else c.content for c in token.children or () if c.type in kinds | {"softbreak"})


def _rewrite_links(tokens: list[Token], names: set[str]) -> None:
    """A link to another page of docs/ leads to it here; one that leads out of docs/ keeps its text alone."""
    for token in tokens:
        stack: list[bool] = []
        for child in token.children or ():
            if child.type == "link_open":
                target = str(child.attrGet("href") or "")
                match = LINK.fullmatch(target)
                if match and match.group(1) in names:
                    child.attrSet("href", BASE + match.group(1) + (match.group(2) or ""))
                keep = (match is not None and match.group(1) in names) or target.startswith(
                    ("http://", "https://", "#", "mailto:")
                )
                stack.append(keep)
                if not keep:
                    child.type, child.tag, child.nesting, child.hidden = "text", "", 0, False
                    child.content = ""
            elif child.type == "link_close" and not stack.pop():
                child.type, child.tag, child.nesting, child.content = "text", "", 0, ""


def render(file: Path, names: set[str]) -> GuidePage:
    """One page of docs/ as HTML, with ids on its headings; `names`: the pages that links may lead to."""
    tokens = markdown.parse(file.read_text(encoding="utf-8"))
    _rewrite_links(tokens, names)
    taken: set[str] = set()
    title, summary = file.stem, ""
    for index, token in enumerate(tokens):
        following = tokens[index + 1] if index + 1 < len(tokens) else None
        if token.type == "heading_open" and following is not None:
            text = _plain_text(following)
            token.attrSet("id", heading_id(text, taken))
            if token.tag == "h1" and title == file.stem:
                title = text
        elif token.type == "paragraph_open" and following is not None and not summary:
            summary = _plain_text(following)
    body = markdown.renderer.render(tokens, markdown.options, {})
    return GuidePage(file.stem, title, summary, body, datetime.fromtimestamp(file.stat().st_mtime, UTC))


class Guide:
    """The rendered pages, made anew when a file of docs/ has changed."""

    def __init__(self, folder: Path = DOCS) -> None:
        self.folder = folder
        self._stamp: list[tuple[str, float]] = []
        self._pages: dict[str, GuidePage] = {}

    def pages(self) -> dict[str, GuidePage]:
        """Every page by name, in the order of a first reading."""
        files = sorted(self.folder.glob("*.md")) if self.folder.is_dir() else []
        files = [file for file in files if NAME.fullmatch(file.stem)]
        stamp = [(file.name, file.stat().st_mtime) for file in files]
        if stamp != self._stamp:
            files.sort(key=lambda f: (ORDER.index(f.stem) if f.stem in ORDER else len(ORDER), f.stem))
            names = {file.stem for file in files}
            self._pages = {file.stem: render(file, names) for file in files}
            self._stamp = stamp
        return self._pages


guide = Guide()


def _html(title: str, body: str) -> Response[str]:
    navigation = (
        f'<header class="top"><div><b>Retort</b><nav aria-label="Guide"><a href="{BASE}">All pages</a></nav></div></header>\n'
    )
    style = "header.top>div{display:flex;align-items:center}"
    text = pages.plain(title, body, style=style, navigation=navigation)
    return pages.page(text, pages.policy(text), cache=CACHE)


@route(BASE, http_method=["GET", "HEAD"], include_in_schema=False, sync_to_thread=True)
def guide_index() -> Response[str]:
    """The list of the pages."""
    items = "\n".join(
        f'<li><a href="{BASE}{p.name}">{html.escape(p.title)}</a><br>{html.escape(p.summary)}</li>'
        for p in guide.pages().values()
    )
    answer = _html("The Retort guide", f"<h1>The Retort guide</h1>\n<ul>\n{items}\n</ul>")
    # Every sentence of this list stands on a page of its own: an assistant should quote it from there.
    answer.headers["x-robots-tag"] = "noindex"
    return answer


@route(BASE + "{name:str}", http_method=["GET", "HEAD"], include_in_schema=False, sync_to_thread=True)
def guide_page(request: Request, name: Annotated[str, Parameter(max_length=100)]) -> Response[str]:
    """One page. Raises Problem 404."""
    if name == "sitemap.xml":
        return _sitemap(services_of(request).settings.visitor_url)
    found = guide.pages().get(name.removesuffix(".html"))
    if found is None:
        raise not_found("page")
    order = list(guide.pages().values())
    place = order.index(found)
    ways = [
        f'<a rel="{rel}" href="{BASE}{other.name}">{word}: {html.escape(other.title)}</a>'
        for rel, word, other in (
            ("prev", "Before", order[place - 1] if place else None),
            ("next", "Next", order[place + 1] if place + 1 < len(order) else None),
        )
        if other is not None
    ]
    body = f'<article>\n{found.body}</article>\n<nav aria-label="Neighbouring pages"><p>{" · ".join(ways)}</p></nav>'
    return _html(found.title, body)


@route(BASE + "images/{name:str}", http_method=["GET", "HEAD"], include_in_schema=False, sync_to_thread=True)
def guide_picture(name: Annotated[str, Parameter(max_length=100)]) -> Response[bytes]:
    """A picture that a page shows. Raises Problem 404."""
    match = PICTURE.fullmatch(name)
    file = guide.folder / "images" / name
    if match is None or not file.is_file():
        raise not_found("picture")
    # Opened by itself, an SVG is a page: it may style itself, and nothing else.
    headers = {"cache-control": CACHE, "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
    return Response(file.read_bytes(), media_type=PICTURES[match.group(1)], headers=headers)


def _sitemap(origin: str) -> Response[str]:
    urls = "\n".join(
        f"<url><loc>{html.escape(origin + BASE + p.name)}</loc><lastmod>{p.changed.isoformat(timespec='seconds')}</lastmod></url>"
        for p in guide.pages().values()
    )
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<urlset xmlns="http://www.sitemaps.org/schemas/sitemap/0.9">\n{urls}\n</urlset>\n'
    return Response(text, media_type="application/xml", headers={"cache-control": CACHE})


@route("/robots.txt", http_method=["GET", "HEAD"], include_in_schema=False, sync_to_thread=False)
def robots(request: Request) -> Response[str]:
    origin = services_of(request).settings.visitor_url
    text = f"User-agent: *\nDisallow: /widget/\nDisallow: /demo/\nSitemap: {origin}{BASE}sitemap.xml\n"
    return Response(text, media_type="text/plain", headers={"cache-control": CACHE})


@route("/", http_method=["GET", "HEAD"], include_in_schema=False, sync_to_thread=False)
def root() -> Redirect:
    return Redirect(BASE, status_code=302)
