"""Whole pages: a template with `{{name}}` places, and the Content-Security-Policy that fits exactly what it holds."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from functools import lru_cache
from typing import Any

import msgspec
from litestar import Response

from app.config import HERE, PAGES

PLACE = re.compile(r"\{\{(\w+)\}\}")
STYLE = re.compile(r"<style>(.*?)</style>", re.DOTALL)
TOKENS = HERE / "frontend" / "shared" / "tokens.css"


@lru_cache(maxsize=16)
def _template(name: str, _changed: float) -> str:
    return (PAGES / name).read_text(encoding="utf-8")


def template(name: str) -> str:
    return _template(name, (PAGES / name).stat().st_mtime)


@lru_cache(maxsize=1)
def tokens_css() -> str:
    """The design tokens of the front end, for the pages that the server draws itself."""
    return TOKENS.read_text(encoding="utf-8")


def script_json(value: Any) -> str:
    """JSON that may stand inside <script type="application/json">: nothing in it can close the element."""
    text = msgspec.json.encode(value).decode()
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def fill(text: str, *, raw: dict[str, str], **values: str) -> str:
    """Fill the places: `raw` as it is, everything else escaped."""
    places = raw | {name: html.escape(value) for name, value in values.items()}
    return PLACE.sub(lambda match: places[match.group(1)], text)


def policy(text: str, frame_ancestors: str = "'none'", *, connect: str = "'self'", frames: str = "'none'") -> str:
    """Own scripts and styles, the inline styles that the page holds (by their hash), no inline script, nothing foreign."""
    hashes = [base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() for style in STYLE.findall(text)]
    styles = " ".join(["'self'", *(f"'sha256-{h}'" for h in hashes)])
    return (
        f"default-src 'none'; script-src 'self'; style-src {styles}; img-src 'self' data:; font-src 'self'; "
        f"connect-src {connect}; frame-src {frames}; base-uri 'none'; form-action 'none'; frame-ancestors {frame_ancestors}"
    )


def page(
    text: str, csp: str, *, cache: str = "no-cache", status: int = 200, headers: dict[str, str] | None = None
) -> Response[str]:
    sent = {"content-security-policy": csp, "cache-control": cache, **(headers or {})}
    return Response(text, status_code=status, headers=sent, media_type="text/html")


PLAIN_STYLE = """
*{box-sizing:border-box}
body{margin:0;background:var(--canvas);color:var(--text);font:400 15px/1.6 system-ui,-apple-system,"Segoe UI",sans-serif}
a{color:var(--accent);text-underline-offset:3px}a:focus-visible{outline:2px solid currentColor;outline-offset:2px}
header.top{background:var(--surface);border-bottom:1px solid var(--line)}
header.top>div,main{max-width:760px;margin:0 auto;padding:16px 24px}
header.top b{font-weight:600}header.top a{margin-left:16px}main{padding-top:32px;padding-bottom:96px;overflow-wrap:break-word}
h1,h2,h3{font-weight:600;line-height:1.3}h1{font-size:26px;margin:0 0 16px}h2{font-size:18px;margin:40px 0 8px}
h3{font-size:15px;margin:32px 0 8px}p,ul,ol,table{margin:0 0 16px}
pre{overflow-x:auto;padding:12px 16px;background:var(--surface);border:1px solid var(--line);border-radius:8px;line-height:1.5}
code{font:13px/1.5 ui-monospace,"SF Mono",Menlo,Consolas,monospace}
table{border-collapse:collapse;width:100%;background:var(--surface);display:block;overflow-x:auto}
th,td{text-align:left;vertical-align:top;padding:8px 12px;border:1px solid var(--line)}th{font-weight:600}
blockquote{margin:0 0 16px;padding-left:16px;border-left:3px solid var(--line)}img{max-width:100%}
"""


def problem(title: str, detail: str, request_id: str) -> str:
    """The body of an error's page."""
    known = f"<p><small>Request {html.escape(request_id)}</small></p>" if request_id else ""
    return f"<h1>{html.escape(title)}</h1>\n<p>{html.escape(detail)}</p>\n{known}"


def plain(title: str, body: str, *, style: str = "", navigation: str = "") -> str:
    """A page that the server draws itself, with the front end's tokens and no script."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{tokens_css()}{PLAIN_STYLE}{style}</style>\n</head>\n<body>\n"
        f"{navigation}<main>\n{body}\n</main>\n</body>\n</html>\n"
    )
