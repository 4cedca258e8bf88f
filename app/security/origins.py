"""Which pages may open an assistant: exact origins, deny by default, the same list for CORS and `frame-ancestors`.

An origin is no authentication (a script can send any): it keeps other sites' visitors out, and limits bound the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.config import Settings
from app.http.problems import Problem


def allowed(settings: Settings, origins: Sequence[str], origin: str | None) -> bool:
    """The visitor origin itself, or one of the assistant's `allowed_origins`; compared exactly, port included."""
    return origin is not None and (origin == settings.visitor_url or origin in origins)


def check(settings: Settings, origins: Sequence[str], origin: str | None) -> str:
    """The origin, if it may. Raises Problem 403."""
    if origin is None or not allowed(settings, origins, origin):
        shown = origin[:200] if origin else "A request without Origin"
        raise Problem(
            403,
            "origin-not-allowed",
            "This page may not use the assistant",
            f"{shown} is not among its allowed origins. Its owner adds it in the dashboard, under Assistant.",
        )
    return origin


def frame_ancestors(settings: Settings, origins: Sequence[str]) -> str:
    """The sources of the CSP directive (CSP Level 3, section 6.4.2)."""
    return " ".join(["'self'", *dict.fromkeys(o for o in origins if o != settings.visitor_url)])
