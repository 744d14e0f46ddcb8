"""Loads adapters into vLLM servers that run, and unloads those that nobody asks for any more."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Generic, TypeVar

import aiohttp
from pydantic_core import from_json

from alidade_operator.podhttp import pod_session, pod_url, read_content, tell_of_a_mistake
from alidade_operator.reconcile.plan import AdapterTarget
from alidade_operator.resources.adapters import LoadedAdapters
from alidade_operator.resources.engines.server import SERVER_PORT

K = TypeVar("K", bound=Hashable)

# Reading an adapter from a network volume, and copying it to the GPUs.
_TIMEOUT_S = 60.0
# Pods are not trusted: a list of 64 adapters has some 20 KiB, and no more than this is read.
_MOST_BYTES = 256 * 1024
_MOST_WORDS = 500
_AT_ONCE = 16


class AdapterLoader(Generic[K]):
    """Brings every target, each interval, to the adapters that it is to have; one that does not answer is asked again
    in the next round."""

    def __init__(self, *, interval_s: float, on_change: Callable[[K], None]) -> None:
        self.loaded: dict[str, LoadedAdapters] = {}
        """By the pod's uid."""
        self._interval_s = interval_s
        self._on_change = on_change
        self._targets: dict[K, tuple[AdapterTarget, ...]] = {}
        self._slots = asyncio.Semaphore(_AT_ONCE)

    def watch(self, key: K, targets: Sequence[AdapterTarget]) -> None:
        """Sets the pods of a resource, and what they are to have; none ends the loading."""
        kept = {target.pod_uid for target in targets}
        for gone in self._targets.get(key, ()):
            if gone.pod_uid not in kept:
                self.loaded.pop(gone.pod_uid, None)
        if targets:
            self._targets[key] = tuple(targets)
        else:
            self._targets.pop(key, None)

    async def run(self) -> None:
        """Loads for ever."""
        async with pod_session(at_once=_AT_ONCE, timeout_s=_TIMEOUT_S) as session:
            while True:
                targets = [(key, target) for key, several in self._targets.items() for target in several]
                await asyncio.gather(*(self._settle(session, key, target) for key, target in targets))
                await asyncio.sleep(self._interval_s)

    async def _settle(self, session: aiohttp.ClientSession, key: K, target: AdapterTarget) -> None:
        try:
            async with self._slots:
                loaded = await settle(session, target)
        except (aiohttp.ClientError, TimeoutError, ValueError):
            return
        except Exception:
            tell_of_a_mistake(target.pod_uid)
            return
        is_wanted = any(one.pod_uid == target.pod_uid for one in self._targets.get(key, ()))
        if is_wanted and self.loaded.get(target.pod_uid) != loaded:
            self.loaded[target.pod_uid] = loaded
            self._on_change(key)


async def settle(session: aiohttp.ClientSession, target: AdapterTarget) -> LoadedAdapters:
    """What a replica has once it has been told what it is to have; raises ValueError for an answer that is no list."""
    server, wanted, refused = pod_url(target.ip, SERVER_PORT), dict(target.adapters), ""
    has = await _list(session, f"{server}{target.path}")
    for name in [name for name, folder in has.items() if wanted.get(name) != folder]:
        words = await _tell(session, f"{server}/v1/unload_lora_adapter", {"lora_name": name})
        refused = refused or words
        if not words:
            del has[name]
    for name, folder in wanted.items():
        if name not in has:
            words = await _tell(session, f"{server}/v1/load_lora_adapter", {"lora_name": name, "lora_path": folder})
            refused = refused or (f"{name}: {words}" if words else "")
            if not words:
                has[name] = folder
    return LoadedAdapters(has, refused)


async def _list(session: aiohttp.ClientSession, url: str) -> dict[str, str]:
    async with session.get(url, allow_redirects=False) as response:
        if response.status != 200:
            raise ValueError(f"{url} answers {response.status}")
        content: Any = from_json(await read_content(response, _MOST_BYTES))
    models = content.get("data") if isinstance(content, dict) else None
    if not isinstance(models, list):
        raise ValueError(f"{url} answers no list of models")
    # An adapter names the model that it belongs to; that itself names none.
    adapters = (one for one in models if isinstance(one, dict) and one.get("parent"))
    return {str(one.get("id")): str(one.get("root")) for one in adapters}


async def _tell(session: aiohttp.ClientSession, url: str, content: dict[str, str]) -> str:
    """The words of a refusal; empty when it is done."""
    async with session.post(url, json=content, allow_redirects=False) as response:
        body = await read_content(response, _MOST_BYTES)
        if response.status == 200:
            return ""
    try:
        words = from_json(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        words = body.decode("utf-8", "replace")
    return f"{response.status} {words}"[:_MOST_WORDS]
