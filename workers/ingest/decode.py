"""Bytes of a page to text: byte-order mark, HTTP header, meta element, detection, in this order (HTML standard, 13.2.3)."""

from __future__ import annotations

import codecs
import re

META_BYTES = 4096
_META = re.compile(
    rb"""<meta[^>]+charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]+)|<\?xml[^>]+encoding\s*=\s*["']([A-Za-z0-9_:.-]+)""", re.I
)
_HEADER = re.compile(r"""charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]+)""", re.I)
_MARKS = ((codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be"))
# What browsers read under these labels (Encoding standard, section 4.2).
_LABELS = {"iso-8859-1": "cp1252", "latin-1": "cp1252", "latin1": "cp1252", "us-ascii": "cp1252", "ascii": "cp1252",
           "iso-8859-9": "cp1254", "gb2312": "gb18030", "gbk": "gb18030", "shift_jis": "cp932", "x-sjis": "cp932",
           "euc-kr": "cp949", "ks_c_5601-1987": "cp949", "utf8": "utf-8", "unicode": "utf-16-le"}  # fmt: skip
# More broken characters than this share mean that the page does not use the encoding it names.
BROKEN_SHARE = 0.002


def decode(body: bytes, content_type: str = "") -> str:
    """The page's text. Never fails: what cannot be read becomes U+FFFD. NUL characters are dropped (PostgreSQL takes none)."""
    for mark, encoding in _MARKS:
        if body.startswith(mark):
            return _clean(body[len(mark) :].decode(encoding, "replace"))
    named = [match.group(1) for match in [_HEADER.search(content_type)] if match]
    meta = _META.search(body[:META_BYTES])
    if meta:
        named.append((meta.group(1) or meta.group(2)).decode("ascii"))
    for label in named:
        text = _try(body, label)
        if text is not None:
            return _clean(text)
    return _clean(_detect(body, named))


def _try(body: bytes, label: str) -> str | None:
    """The text, unless the label is unknown or plainly wrong."""
    label = label.strip().lower()
    label = _LABELS.get(label, label)
    try:
        codec = codecs.lookup(label)
    except (LookupError, ValueError):
        return None
    if not getattr(codec, "_is_text_encoding", True) or (codec.name.startswith("utf-16") and body[:64].count(0) < 8):
        return None
    text = body.decode(label, "replace")
    return text if text.count("\ufffd") <= max(2, len(text) * BROKEN_SHARE) else None


def _detect(body: bytes, named: list[str]) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        from charset_normalizer import from_bytes

        best = from_bytes(body[: 64 * 1024]).best()
        for label in ([best.encoding] if best else []) + ["utf-8"] + named:
            text = _try(body, label)
            if text is not None:
                return text
        return body.decode("cp1252", "replace")


def _clean(text: str) -> str:
    return text.replace("\x00", "")
