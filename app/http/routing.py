"""What the controllers of both origins share: dependencies, and how a route is described in OpenAPI."""

from __future__ import annotations

from typing import Any

from litestar import Request
from litestar.openapi import ResponseSpec

from app.http.services import Services, services_of
from app.security.guards import Caller
from app.security.tokens import VisitorClaims


async def provide_services(request: Request) -> Services:
    return services_of(request)


async def provide_visitor(request: Request) -> VisitorClaims:
    return request.auth


async def provide_caller(request: Request) -> Caller:
    return request.auth


def answers(status: int, shape: Any, description: str = "As documented") -> dict[int, ResponseSpec]:
    """The success of a route whose view is a plain dict of this shape."""
    return {status: ResponseSpec(data_container=shape, description=description, generate_examples=False)}


def client_address(request: Request) -> str:
    """The peer, or what a trusted proxy says of it (uvicorn's FORWARDED_ALLOW_IPS)."""
    return request.client.host if request.client else "unknown"
