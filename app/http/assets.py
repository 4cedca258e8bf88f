"""Files of the built front end: read once, compressed once, named by their content."""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

import msgspec
from litestar import Request, Response

from app.config import STATIC
from app.http.problems import Problem

IMMUTABLE = "public, max-age=31536000, immutable"  # the name holds a hash of the content
SHORT = "public, max-age=300"
COMPRESSED_FROM = 512  # bytes; below, gzip gains nothing
TEXT = ("text/", "application/javascript", "text/javascript", "application/json", "image/svg+xml")


@dataclass(frozen=True, slots=True)
class Asset:
    media_type: str
    data: bytes
    gzipped: bytes | None
    etag: str


def _read(file: Path) -> Asset:
    data = file.read_bytes()
    media_type = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
    text = media_type.startswith(TEXT)
    gzipped = gzip.compress(data, 9, mtime=0) if text and len(data) >= COMPRESSED_FROM else None
    return Asset(
        f"{media_type}; charset=utf-8" if text else media_type, data, gzipped, f'"{hashlib.sha256(data).hexdigest()[:24]}"'
    )


class Assets:
    """The files below `app/static`, kept in memory until they change on disk."""

    def __init__(self, root: Path = STATIC) -> None:
        self.root = root.resolve()
        self._kept: dict[Path, tuple[float, Asset]] = {}

    def find(self, *parts: str) -> Asset | None:
        """The file below the root, read again when it has changed; None when there is none, or when the path leads out."""
        file = self.root.joinpath(*parts)
        try:
            if not file.resolve().is_relative_to(self.root) or not file.is_file():
                return None
            changed = file.stat().st_mtime
            kept = self._kept.get(file)
            if kept is None or kept[0] != changed:
                kept = self._kept[file] = (changed, _read(file))
            return kept[1]
        except (OSError, ValueError):
            return None

    def tags(self, bundle: str, base: str) -> str:
        """The tags of a bundle's entry, from Vite's manifest. Raises Problem 503 when it was never built."""
        manifest = self.find(bundle, "manifest.json")
        if manifest is None:
            raise Problem(503, "front-end-not-built", "The front end is not built", "Run `make up`, which builds it.")
        entries = msgspec.json.decode(manifest.data, type=dict[str, dict])
        entry = next(item for item in entries.values() if item.get("isEntry"))
        styles = [f'<link rel="stylesheet" href="{base}{name}">' for name in entry.get("css", ())]
        return "\n".join([*styles, f'<script type="module" src="{base}{entry["file"]}"></script>'])


def respond(request: Request, asset: Asset, cache: str, headers: dict[str, str] | None = None) -> Response[bytes]:
    """200 with the asset, compressed when the reader takes gzip; 304 when it has it."""
    sent = {"cache-control": cache, "etag": asset.etag, "vary": "accept-encoding", **(headers or {})}
    if asset.etag in request.headers.get("if-none-match", ""):
        return Response(b"", status_code=304, headers=sent, media_type=asset.media_type)
    body = asset.data
    if asset.gzipped is not None and "gzip" in request.headers.get("accept-encoding", ""):
        body, sent["content-encoding"] = asset.gzipped, "gzip"
    if request.method == "HEAD":
        body = b""
    return Response(body, headers=sent, media_type=asset.media_type)
