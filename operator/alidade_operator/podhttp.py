"""What everybody minds who asks pods over HTTP: how an address is written, and that pods are not trusted."""

import aiohttp


def pod_url(ip: str, port: int, path: str = "") -> str:
    """The URL of a path at a pod."""
    host = f"[{ip}]" if ":" in ip else ip
    return f"http://{host}:{port}{path}"


async def read_content(response: aiohttp.ClientResponse, most_bytes: int) -> bytes:
    """The body, of which no more than the limit, and the chunk that exceeds it, is read."""
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > most_bytes:
            break
    return b"".join(parts)
