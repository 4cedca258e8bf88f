"""The OpenAPI description is true: calls made from it are answered as it says, and never by a fault of the server."""

from __future__ import annotations

import asyncio

import hypothesis
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from app.http.reference import schema
from tests.api.conftest import join

EXAMPLES = 12  # a route
# A search without a generator takes its whole deadline, and a stream lasts as long as an answer.
LEFT_OUT = ("/search", "/events", "/sign-out")


def _try(description: dict, url: str, prefix: str, headers: dict[str, str]) -> int:
    """Call every route below `prefix` with made-up values; gives the number of calls."""
    described = schemathesis.openapi.from_dict(description)
    calls = 0
    for result in described.get_all_operations():
        operation = result.ok()
        if not operation.path.startswith(prefix) or operation.path.endswith(LEFT_OUT):
            continue

        @hypothesis.given(case=operation.as_strategy())
        @hypothesis.settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        def probe(case: schemathesis.Case) -> None:
            nonlocal calls
            calls += 1
            response = case.call(base_url=url, headers=headers, timeout=10)
            checks = [response_schema_conformance, status_code_conformance]
            if response.status_code != 503:  # an honest refusal
                checks.append(not_a_server_error)
            case.validate_response(response, checks=checks)

        probe()
    return calls


async def test_members_routes_answer_as_described(web, tenant, key):
    description = schema(web.visitor_url, web.dashboard_url)
    assert await asyncio.to_thread(_try, description, web.dashboard_url, "/api/v1/", key) > 60


async def test_visitors_routes_answer_as_described(web, visitors, tenant):
    asker = await join(visitors, tenant.slug)
    description = schema(web.visitor_url, web.dashboard_url)
    headers = {**asker.auth, "origin": web.visitor_url}
    assert await asyncio.to_thread(_try, description, web.visitor_url, "/widget/v1/", headers) > 20
