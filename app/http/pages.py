"""The pages of both origins: the widget's frame, the full page, the demo, the dashboard's shell, and the files they load."""

from __future__ import annotations

from typing import Literal

from litestar import Request, Response, route
from sqlalchemy import select

from app.accounts.service import bind_workspace
from app.assistants.models import Assistant
from app.assistants.service import public_view
from app.db import lookups
from app.http import html as pages
from app.http.assets import IMMUTABLE, SHORT, Assets
from app.http.assets import respond as serve
from app.http.problems import Problem, not_found
from app.http.services import Services, services_of
from app.security.origins import frame_ancestors

WIDGET_API = "/widget/v1"
MEMBER_API = "/api/v1"
ASSETS = "/assets/"
READ: tuple[Literal["GET"], Literal["HEAD"]] = ("GET", "HEAD")
# Below these, an unknown address is an error for a program, not a page of the dashboard.
NOT_PAGES = ("api/", "assets/", "health/", "schema/", "widget/")

assets = Assets()


async def _assistant(services: Services, slug: str) -> Assistant:
    async with services.database.transaction(None) as session:
        found = await lookups.assistant_by_slug(session, slug)
        if found is None:
            detail = "No assistant has this address. Check the link, or data-assistant in the page's script tag."
            raise Problem(404, "assistant-unknown", "There is no such assistant", detail)
        await bind_workspace(session, found[0])
        return (await session.execute(select(Assistant).where(Assistant.id == found[1]))).scalar_one()


async def _widget_page(request: Request, slug: str, mode: str) -> Response[str]:
    services = services_of(request)
    assistant = await _assistant(services, slug)
    config = {"mode": mode, "api": WIDGET_API, "assistant": public_view(assistant)}
    raw = {"assets": assets.tags("widget", f"{ASSETS}widget/"), "config": pages.script_json(config)}
    text = pages.fill(pages.template(f"{mode}.html"), raw=raw, title=assistant.name, lang="en", slug=assistant.slug)
    # The frame and the page open where the widget may be shown, and nowhere else.
    ancestors = frame_ancestors(services.settings, assistant.allowed_origins)
    return pages.page(text, pages.policy(text, ancestors))


@route("/widget/frame/{slug:str}", http_method=READ, include_in_schema=False)
async def frame(request: Request, slug: str) -> Response[str]:
    return await _widget_page(request, slug, "frame")


@route("/a/{slug:str}", http_method=READ, include_in_schema=False)
async def full_page(request: Request, slug: str) -> Response[str]:
    return await _widget_page(request, slug, "page")


@route("/demo/{slug:str}", http_method=READ, include_in_schema=False)
async def demo(request: Request, slug: str) -> Response[str]:
    """A sample website with the widget on it."""
    services = services_of(request)
    assistant = await _assistant(services, slug)
    text = pages.fill(
        pages.template("demo.html"),
        raw={},
        title=f"{assistant.name} on a website",
        lang="en",
        slug=assistant.slug,
        loader_url=f"{services.settings.visitor_url}/widget.js",
    )
    return pages.page(text, pages.policy(text, frames="'self'"))


@route("/widget.js", http_method=READ, include_in_schema=False, sync_to_thread=True)
def loader(request: Request) -> Response[bytes]:
    """The loader, for any website: short-lived, because its name never changes."""
    asset = assets.find("widget.js")
    if asset is None:
        raise Problem(503, "front-end-not-built", "The front end is not built", "Run `make up`, which builds it.")
    return serve(request, asset, SHORT, {"access-control-allow-origin": "*", "cross-origin-resource-policy": "cross-origin"})


@route("/favicon.ico", http_method=READ, include_in_schema=False, status_code=204, sync_to_thread=False)
def favicon() -> Response[None]:
    """None yet; said once a day instead of as an error on every page."""
    return Response(None, status_code=204, headers={"cache-control": "public, max-age=86400"})


def _bundle(request: Request, bundle: str, name: str) -> Response[bytes]:
    asset = assets.find(bundle, name) if name != "manifest.json" else None
    if asset is None:
        raise not_found("file")
    return serve(request, asset, IMMUTABLE)


@route(ASSETS + "widget/{name:str}", http_method=READ, include_in_schema=False, sync_to_thread=True)
def widget_file(request: Request, name: str) -> Response[bytes]:
    return _bundle(request, "widget", name)


@route(ASSETS + "dashboard/{name:str}", http_method=READ, include_in_schema=False, sync_to_thread=True)
def dashboard_file(request: Request, name: str) -> Response[bytes]:
    return _bundle(request, "dashboard", name)


def _shell(request: Request) -> Response[str]:
    config = {"api": MEMBER_API, "visitor_origin": services_of(request).settings.visitor_url}
    raw = {"assets": assets.tags("dashboard", f"{ASSETS}dashboard/"), "config": pages.script_json(config)}
    text = pages.fill(pages.template("dashboard.html"), raw=raw, title="Retort", lang="en")
    return pages.page(text, pages.policy(text))


@route("/", http_method=READ, include_in_schema=False, sync_to_thread=True)
def dashboard_root(request: Request) -> Response[str]:
    return _shell(request)


@route("/{rest:path}", http_method=READ, include_in_schema=False, sync_to_thread=True)
def dashboard_page(request: Request, rest: str) -> Response[str]:
    """Every other address is drawn by the dashboard itself, for a browser that asks for a page."""
    if rest.lstrip("/").startswith(NOT_PAGES) or "text/html" not in request.headers.get("accept", ""):
        raise not_found("page")
    return _shell(request)
