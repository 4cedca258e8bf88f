"""What the controllers of both origins share: dependencies, and how a route is described in OpenAPI."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request
from litestar.openapi import ResponseSpec
from litestar.params import Parameter

from app.http.input import KEY_LENGTH
from app.http.services import Services, services_of
from app.security.guards import Caller
from app.security.tokens import VisitorClaims

IdempotencyKey = Annotated[str | None, Parameter(header="Idempotency-Key", required=False, max_length=KEY_LENGTH)]


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
    """The peer, or what one of RETORT_TRUSTED_PROXIES says of it: uvicorn has put it here (app.asgi.web_server)."""
    return request.client.host if request.client else "unknown"
