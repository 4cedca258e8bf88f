"""The names of one's own machine: three ways to write the same server, and three origins to a browser."""

from __future__ import annotations

from urllib.parse import urlsplit

NAMES = ("127.0.0.1", "localhost", "::1")


def is_loopback_alias(given: str, own: str) -> bool:
    """Whether `given` is another loopback name for the loopback origin `own` (the same scheme and port)."""
    try:
        one, other = urlsplit(given), urlsplit(own)
        return (
            one.scheme == other.scheme
            and one.port == other.port
            and one.hostname in NAMES
            and other.hostname in NAMES
            and one.hostname != other.hostname
        )
    except ValueError:
        return False
