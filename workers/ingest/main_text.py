"""Which part of a page is its content: navigation, banners and other furniture are removed, then the root is chosen.

Names of classes are hints and no proof (a handbook's "sidebar" may be a tip worth quoting), so what a name suggests is
checked against the share of its text that lies in links.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

Node = Any  # selectolax.lexbor.LexborNode


def _names(table: str) -> frozenset[str]:
    return frozenset(table.split())


DROPPED = _names("""
    script style noscript template svg iframe object embed canvas audio video nav footer button select option input textarea
    dialog menu map head annotation annotation-xml datalist progress meter frameset noframes
""")
ROLES = _names("navigation banner contentinfo search menu menubar toolbar dialog alertdialog")
STRONG = _names("""
    nav navbar navigation docnav navheader navfooter navlinks breadcrumb breadcrumbs footer cookie cookies consent gdpr share
    sharing social pagination pager prevnext skip skiplink masthead newsletter modal popup subscribe sphinxsidebar topbar
""")
WEAK = _names("sidebar banner related comments toc tableofcontents header meta menu widget ads advert promo tags")
ALWAYS = _names("""
    headerlink permalink anchorjs-link skip-link sr-only visually-hidden screen-reader-text linenos lineno noprint
""")
# Elements that a class may turn into furniture. A section or heading named "cookies" is more likely about them.
CONTAINERS = _names("div ul ol dl p table span td aside header form center section")
STRONG_SHARE, WEAK_SHARE, ID_SHARE = 0.3, 0.4, 0.5
SHORT = 300  # characters: more text than this with few links is content, whatever its class says

MAIN = "main, [role=main]"
NAMED = (
    "#content, #main, #main-content, #primary, .main-content, .markdown-body, .entry-content, .post-content, .article-body, "
    ".article-content, .theme-doc-markdown, .md-content, .rst-content .document, .document .body, .page-content, .content"
)
MAIN_SHARE, NAMED_SHARE = 0.25, 0.5
LINK_LIST_SHARE, LINK_LIST_LINKS = 0.85, 5


def walk(root: Node) -> Iterator[tuple[Node, bool]]:
    """(node, entering) in document order, without recursion: pages may nest thousands deep."""
    stack = [(root, True)]
    while stack:
        node, entering = stack.pop()
        yield node, entering
        if entering:
            stack.append((node, False))
            stack.extend((child, True) for child in reversed(list(node.iter(include_text=True))))


def text_length(node: Node) -> int:
    return len(re.sub(r"\s+", " ", node.text(deep=True)).strip())


def link_share(node: Node, length: int) -> float:
    return sum(text_length(link) for link in node.css("a")) / length if length else 1.0


def prune(root: Node) -> None:
    """Remove what is no content from the tree under `root`."""
    has_main = root.css_first(MAIN + ", article") is not None
    furniture: list[Node] = []
    inside_main = 0
    stack = [(root, True)]
    while stack:
        node, entering = stack.pop()
        if node.tag in ("main", "article"):
            inside_main += 1 if entering else -1
        if not entering or node.tag == "-text":
            continue
        if node is not root and _is_furniture(node, inside_main > 0, has_main):
            furniture.append(node)
            if node.tag in ("main", "article"):
                inside_main -= 1
            continue
        stack.append((node, False))
        stack.extend((child, True) for child in node.iter(include_text=False))
    for node in furniture:
        node.decompose()


def _is_furniture(node: Node, inside_main: bool, has_main: bool) -> bool:
    tag, attributes = node.tag, node.attributes
    if tag in DROPPED or tag.startswith("-") or tag == "!doctype":
        return True
    if tag in ("body", "main", "article"):
        return False
    if not attributes and tag not in ("header", "aside", "sup"):
        return False
    style = (attributes.get("style") or "").replace(" ", "").lower()
    if "hidden" in attributes or attributes.get("aria-hidden") == "true":
        return True
    if "display:none" in style or "visibility:hidden" in style:
        return True
    role = (attributes.get("role") or "").lower()
    if role in ROLES:
        return True
    if tag == "sup":
        return _is_footnote_mark(node)
    if tag == "header" and not inside_main and has_main:
        return True
    classes = str(attributes.get("class") or "").lower().split()
    if not ALWAYS.isdisjoint(classes):
        return tag not in ("h1", "h2", "h3", "h4", "h5", "h6")
    if tag == "a":
        return _is_permalink(node)
    if tag not in CONTAINERS:
        return False
    return _is_named_furniture(node, tag, role, classes, (attributes.get("id") or "").lower())


def _is_named_furniture(node: Node, tag: str, role: str, classes: list[str], identifier: str) -> bool:
    words = {word for name in classes for word in (name, *re.split(r"[-_]+", name))}
    strong = not STRONG.isdisjoint(words) and tag != "section"
    weak = not WEAK.isdisjoint(words) or tag == "aside" or role == "complementary"
    by_id = not (STRONG | WEAK).isdisjoint({identifier, *re.split(r"[-_]+", identifier)})
    if not (strong or weak or by_id):
        return False
    length = text_length(node)
    share = link_share(node, length)
    return (
        (strong and (share >= STRONG_SHARE or length < SHORT)) or (weak and share >= WEAK_SHARE) or (by_id and share >= ID_SHARE)
    )


def _is_footnote_mark(node: Node) -> bool:
    """[1] and the like: a sentence reads better without, and is quoted without."""
    link = node.css_first("a")
    return link is not None and re.fullmatch(r"\W*(\d{1,3}|[a-z*†‡])\W*", node.text(deep=True).strip()) is not None


def _is_permalink(node: Node) -> bool:
    """The mark beside a heading that links to the heading itself. An anchor without text is kept: it may name the heading."""
    text = node.text(deep=True).strip()
    return text in ("#", "¶", "§", "🔗", "⚓", "Link", "Anchor") and (node.attributes.get("href") or "").startswith("#")


def content_root(body: Node) -> Node:
    """The element that holds the content of a pruned page."""
    total = text_length(body)
    if not total:
        return body
    for selector, share in ((MAIN, MAIN_SHARE), ("article", NAMED_SHARE), (NAMED, NAMED_SHARE)):
        held = [(text_length(node), -position, node) for position, node in enumerate(body.css(selector))]
        fitting = [entry for entry in held if entry[0] >= total * share]
        if fitting:
            # The innermost that still holds nearly all of what the largest does.
            largest = max(fitting)[0]
            return min((entry for entry in fitting if entry[0] >= largest * 0.9), key=lambda entry: entry[1])[2]
    _drop_link_lists(body)
    return body


def _drop_link_lists(body: Node) -> None:
    """Without a named content element, a list of nothing but links is taken for a menu."""
    menus: list[Node] = []
    for node in body.css("ul, ol, table, dl"):
        links = node.css("a")
        length = text_length(node)
        if len(links) >= LINK_LIST_LINKS and link_share(node, length) >= LINK_LIST_SHARE:
            menus.append(node)
    chosen = {node.mem_id for node in menus}
    for node in menus:
        parent = node.parent
        while parent is not None and parent.mem_id not in chosen:
            parent = parent.parent
        if parent is None:
            node.decompose()
