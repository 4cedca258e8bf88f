"""Addresses of pages: one spelling for each page, what belongs to a site, and what is no page at all."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

URL_LENGTH = 500
# Addresses beyond these are made by programs, not written by people: calendars, filters, sessions, relative links gone wrong.
MAX_PARAMETERS, MAX_SEGMENTS, MAX_REPEATS = 3, 16, 3
PORTS = {"http": 80, "https": 443}
DOCUMENTS = {
    ".pdf": "PDF", ".doc": "Word", ".docx": "Word", ".ppt": "PowerPoint", ".pptx": "PowerPoint", ".xls": "Excel",
    ".xlsx": "Excel", ".odt": "OpenDocument", ".ods": "OpenDocument", ".odp": "OpenDocument", ".epub": "EPUB", ".rtf": "RTF",
}  # fmt: skip
_ASSETS = """jpg jpeg png gif svg webp avif ico bmp tif tiff css js mjs map json xml rss atom txt woff woff2 ttf otf eot mp3 mp4
    m4a m4v mov avi mkv webm ogg ogv wav flac zip gz tgz bz2 xz zst 7z rar tar deb rpm dmg iso exe msi apk jar whl bin img swf
    wasm csv tsv ics vcf torrent sig asc sha256 md5 yaml yml toml py c h cpp java go rs sh ps eps tex"""
ASSETS = frozenset(f".{name}" for name in _ASSETS.split())
_TRACKING = re.compile(
    r"^(utm_\w+|fbclid|gclid|dclid|msclkid|mc_[ce]id|igshid|_ga|_gl|phpsessid|jsessionid|sessionid|sid|replytocom)$"
)
_ACTIONS = re.compile(r"/(login|logout|signin|signup|register|cart|checkout|wp-admin|wp-login\.php|cgi-bin)(/|$)", re.I)
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_SAFE = "%!$&'()*+,;=:@/?~-._"


def normalise(url: str) -> str | None:
    """The one spelling of an address: no fragment, default port, tracking parameter or dot segment. None: no web address."""
    try:
        parts = urlsplit(url.strip())
        scheme, host, port = parts.scheme.lower(), (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return None
    if scheme not in PORTS or not host or "@" in parts.netloc:
        return None
    netloc = f"[{host}]" if ":" in host else host
    if port and port != PORTS[scheme]:
        netloc += f":{port}"
    path = _spell(re.sub(r";jsessionid=[^/?]*", "", parts.path, flags=re.I))
    path = re.sub(r"/{2,}", "/", path)
    path = "/" + posixpath.normpath(path).lstrip("/") + ("/" if path.endswith(("/", "/.", "/..")) else "") if path else "/"
    path = re.sub(r"/{2,}", "/", path)
    fields = [one for one in parts.query.split("&") if one and not _TRACKING.match(one.partition("=")[0].lower())]
    return urlunsplit((scheme, netloc, path, _spell("&".join(fields)), ""))


def _spell(text: str) -> str:
    """Percent-encoding as RFC 3986, section 6.2.2, normalises it: unreserved characters plain, the rest in capitals."""
    plain = re.sub(r"%([0-9a-fA-F]{2})", lambda match: _plain(match.group(1)), text)
    return quote(re.sub(r"%(?![0-9A-F]{2})", "%25", plain), _SAFE, errors="replace")


def _plain(code: str) -> str:
    character = chr(int(code, 16))
    return character if character in _UNRESERVED else f"%{code.upper()}"


class Site:
    """What a source's address takes in: pages of the same host, at or below its path."""

    def __init__(self, url: str) -> None:
        self.root = normalise(url) or url
        self.host = _host(self.root)
        path = urlsplit(self.root).path
        last = path.rpartition("/")[2]
        # /docs/guide.html stands for its folder, /docs for itself and what lies below.
        self.prefix = path[: len(path) - len(last)] if "." in last or not last else path

    def holds(self, url: str) -> bool:
        path = urlsplit(url).path or "/"
        inside = (
            path.startswith(self.prefix)
            if self.prefix.endswith("/")
            else path == self.prefix or path.startswith(self.prefix + "/")
        )
        # /docs/ is asked for as /docs by some: both are the site's first page.
        return _host(url) == self.host and (inside or path + "/" == self.prefix)


def _host(url: str) -> tuple[str, int | None]:
    """Host and port; www. and the choice of http or https make no other site."""
    parts = urlsplit(url)
    port = parts.port if parts.port not in PORTS.values() else None
    return (parts.hostname or "").removeprefix("www."), port


def document_kind(url: str) -> str | None:
    """The kind of a file that an owner may expect to be read, though it is no page."""
    return DOCUMENTS.get(_extension(url))


def is_page(url: str) -> bool:
    """Whether an address may be a page worth asking for: no picture, no archive, no endless calendar."""
    parts = urlsplit(url)
    segments = [segment for segment in parts.path.split("/") if segment]
    if len(url) > URL_LENGTH or len(segments) > MAX_SEGMENTS or _extension(url) in ASSETS or _ACTIONS.search(parts.path):
        return False
    if len(parse_qsl(parts.query, keep_blank_values=True)) > MAX_PARAMETERS:
        return False
    return max(Counter(segments).values(), default=0) < MAX_REPEATS


def _extension(url: str) -> str:
    return posixpath.splitext(urlsplit(url).path)[1].lower()
