"""What everybody minds who asks pods over HTTP: how an address is written, and that pods are not trusted."""

import logging

import aiohttp

_log = logging.getLogger(__name__)


def pod_url(ip: str, port: int, path: str = "") -> str:
    """The URL of a path at a pod."""
    host = f"[{ip}]" if ":" in ip else ip
    return f"http://{host}:{port}{path}"


def pod_session(*, at_once: int, timeout_s: float) -> aiohttp.ClientSession:
    """A session for pods: what they send compressed stays so, since a few bytes may unpack to gigabytes."""
    return aiohttp.ClientSession(
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        connector=aiohttp.TCPConnector(limit=at_once),
        headers={"Accept-Encoding": "identity"},
        auto_decompress=False,
    )


def tell_of_a_mistake(pod_uid: str) -> None:
    """To be called while an error is handled that no answer should cause: that pod alone is passed over."""
    _log.exception("a pod's answer was not understood", extra={"action": "pass over", "why": f"pod {pod_uid}"})


async def read_content(response: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """The body, of which no more than the limit, and the chunk that exceeds it, is read."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > most_bytes:
            break
    return b"".join(parts)
