"""Which headers are passed on, and which concern one connection only."""

from collections.abc import Mapping

from aiohttp import web
from multidict import CIMultiDict

# RFC 9110, section 7.6.1, and those that never became standard.
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
# The body is sent as it was read: whole, and decompressed. The host is the backend's.
_OF_THE_BODY_AS_IT_CAME = frozenset({"content-encoding", "content-length", "expect", "host"})
REQUEST_ID = "X-Request-Id"
BACKEND = "X-Alidade-Backend"


def forwarded(request: web.Request) -> CIMultiDict[str]:
    """A request's headers as a backend gets them, keys included."""
    headers = _without_hop_by_hop(request.headers, _OF_THE_BODY_AS_IT_CAME)
    headers[REQUEST_ID] = request["id"]
    if request.remote:
        before = headers.get("X-Forwarded-For")
        headers["X-Forwarded-For"] = f"{before}, {request.remote}" if before else request.remote
    return headers


def passed_back(headers: Mapping[str, str], *, request_id: str, backend: str) -> CIMultiDict[str]:
    """An answer's headers as the client gets them."""
    kept = _without_hop_by_hop(headers, frozenset())
    kept[REQUEST_ID] = request_id
    kept[BACKEND] = backend
    return kept


def _without_hop_by_hop(headers: Mapping[str, str], also: frozenset[str]) -> CIMultiDict[str]:
    named = {
        name.strip().lower()
        for key, value in headers.items()
        if key.lower() == "connection"
        for name in value.split(",")
    }
    dropped = _HOP_BY_HOP | named | also
    return CIMultiDict((key, value) for key, value in headers.items() if key.lower() not in dropped)
