"""Visitor tokens: signed, short-lived, and good for one visitor of one assistant (JWT, RFC 7519, HS256)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import jwt

from app.http.problems import Problem

ALGORITHM = "HS256"
AUDIENCE = "retort-visitor"
LIFE = timedelta(hours=1)
# A browser that comes back with an old token keeps its visitor, but not for ever.
KEEP = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class VisitorClaims:
    workspace_id: UUID
    assistant_id: UUID
    visitor_id: UUID
    origin: str  # of the page that asked for the token


def issue(secret: str, claims: VisitorClaims) -> str:
    """A fresh token for these claims, good for an hour."""
    now = datetime.now(UTC)
    body = {
        "aud": AUDIENCE,
        "iat": now,
        "exp": now + LIFE,
        "sub": str(claims.visitor_id),
        "ws": str(claims.workspace_id),
        "as": str(claims.assistant_id),
        "org": claims.origin,
    }
    return jwt.encode(body, secret, ALGORITHM)


def read(secret: str, token: str, *, expired_too: bool = False) -> VisitorClaims:
    """Check the signature, the audience and (unless `expired_too`) the time. Raises Problem 401."""
    leeway = KEEP if expired_too else timedelta(0)
    try:
        body = jwt.decode(
            token,
            secret,
            [ALGORITHM],
            audience=AUDIENCE,
            leeway=leeway,
            options={"require": ["exp", "iat", "sub", "aud"], "verify_iat": False},
        )
        return VisitorClaims(UUID(body["ws"]), UUID(body["as"]), UUID(body["sub"]), str(body["org"]))
    except jwt.ExpiredSignatureError:
        raise Problem(
            401,
            "token-expired",
            "The session has expired",
            "Ask POST /widget/v1/session for a new token; send the old one as visitor_token to stay the same visitor.",
            headers={"www-authenticate": 'Bearer error="invalid_token", error_description="expired"'},
        ) from None
    except (jwt.InvalidTokenError, KeyError, ValueError, TypeError):
        raise token_invalid() from None


def token_invalid() -> Problem:
    """The refusal of whatever this server did not sign, or has signed for something else."""
    return Problem(
        401,
        "token-invalid",
        "The token is not valid",
        "Ask POST /widget/v1/session for a token and send it as Authorization: Bearer …",
        headers={"www-authenticate": 'Bearer error="invalid_token"'},
    )
