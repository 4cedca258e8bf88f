"""Whose address a limit counts: the peer's, unless the owner has named the proxy that speaks for others."""

from __future__ import annotations

from dataclasses import replace

import httpx
import pytest

from app.config import Settings, SettingsError
from app.http.rate_limit import SESSIONS_ADDRESS
from tests.api.conftest import serving

BURST = SESSIONS_ADDRESS.capacity


async def left_for(web, slug: str, **headers: str) -> int:
    """How many sessions the caller's address may still begin, the one of this call taken."""
    async with httpx.AsyncClient(base_url=web.visitor_url, headers={"origin": web.visitor_url}) as client:
        answer = await client.post("/widget/v1/session", json={"assistant": slug}, headers=headers)
        assert answer.status_code == 201
        return int(answer.headers["ratelimit-remaining"])


async def test_without_a_trusted_proxy_a_forged_header_is_no_way_around_the_limit(web, tenant):
    assert web.settings.trusted_proxies == ()
    counted = [await left_for(web, tenant.slug, **{"x-forwarded-for": f"203.0.113.{n}"}) for n in range(4)]
    assert counted == [BURST - n for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("proxies", [("127.0.0.1",), ("10.9.8.7", "127.0.0.0/8")])
async def test_behind_a_trusted_proxy_each_visitor_has_a_limit_of_their_own(stack, tenant, proxies):
    async with serving(replace(stack.settings, trusted_proxies=proxies)) as web:
        for address in ("203.0.113.1", "2001:db8::1", "203.0.113.2"):
            assert await left_for(web, tenant.slug, **{"x-forwarded-for": address}) == BURST - 1
        assert await left_for(web, tenant.slug, **{"x-forwarded-for": "203.0.113.1"}) == BURST - 2
        # A visitor who sends the header too: the proxy writes the true address behind it, and that one counts.
        forged = [await left_for(web, tenant.slug, **{"x-forwarded-for": f"198.51.100.{n}, 203.0.113.9"}) for n in range(3)]
        assert forged == [BURST - n for n in (1, 2, 3)]


async def test_the_header_of_a_peer_that_is_no_trusted_proxy_is_not_believed(stack, tenant):
    async with serving(replace(stack.settings, trusted_proxies=("10.0.0.2",))) as web:
        counted = [await left_for(web, tenant.slug, **{"x-forwarded-for": f"203.0.113.{n}"}) for n in range(3)]
        assert counted == [BURST - n for n in (1, 2, 3)]


def test_the_setting_is_checked(stack):
    given = stack.servers.environment()
    proxies = Settings.load(given | {"RETORT_TRUSTED_PROXIES": "10.0.0.2, 172.18.0.0/16,2001:db8::/32"}).trusted_proxies
    assert proxies == ("10.0.0.2", "172.18.0.0/16", "2001:db8::/32")
    for wrong in ("proxy", "*", "10.0.0.1/16"):
        with pytest.raises(SettingsError, match="RETORT_TRUSTED_PROXIES holds"):
            Settings.load(given | {"RETORT_TRUSTED_PROXIES": wrong})
