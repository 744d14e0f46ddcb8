"""The routes of the pages, where they are asked for."""

from aiohttp import web

from alidade_gateway.forwarding import Forwarder
from alidade_gateway.gateway import GATEWAY
from alidade_gateway.pages.files import page, resources


def add_pages(application: web.Application, open_paths: set[str], forwarder: web.AppKey[Forwarder]) -> None:
    """Adds what the gateway's settings ask for. Pages and their files need no key; what they ask for does.

    open_paths: is told of them.
    """
    gateway = application[GATEWAY]
    settings = gateway.settings
    if not settings.chat and not settings.arena:
        return
    shown = {
        "name": settings.name,
        "chat": "" if settings.chat else "hidden",
        "arena": "" if settings.arena else "hidden",
    }
    files = dict(resources())
    if settings.chat:
        files["/chat"] = page("chat.html", shown)
    if settings.arena:
        files["/arena"] = page("arena.html", shown)
        _add_arena(application, forwarder)
    for path, handler in files.items():
        application.router.add_get(path, handler)
    open_paths.update(files)
    # Whatever else is below these is nobody's; without this it would reach a backend.
    for path in ("/pages/{path:.*}", *(("/arena/{path:.*}",) if settings.arena else ())):
        application.router.add_route("*", path, _nothing)


def _add_arena(application: web.Application, forwarder: web.AppKey[Forwarder]) -> None:
    # Ratings need SciPy, which takes a second to load and memory: only where there is an arena.
    from alidade_gateway.pages.arena import Arena

    arena = Arena(application[GATEWAY], forwarder)
    application.on_cleanup.append(arena.close)
    application.add_routes(
        [
            web.post("/arena/api/comparisons", arena.compare),
            web.post("/arena/api/comparisons/{id}/vote", arena.vote),
            web.get("/arena/api/ratings", arena.ratings),
        ]
    )


async def _nothing(request: web.Request) -> web.StreamResponse:  # noqa: ARG001
    raise web.HTTPNotFound
