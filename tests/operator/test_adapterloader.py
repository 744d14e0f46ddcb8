"""Adapters that come and go while a server runs, against a server that answers as vLLM 0.32 does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from alidade_operator import adapterloader
from alidade_operator.adapterloader import AdapterLoader, settle
from alidade_operator.reconcile.plan import AdapterTarget
from alidade_operator.resources.adapters import LoadedAdapters

LAW, TAX = ("law", "/volumes/data/law"), ("tax", "/volumes/data/tax")


@dataclass
class PlayedVllm:
    """The three routes that are used, as vLLM answers them: an adapter has to have a name of its own and a folder."""

    adapters: dict[str, str] = field(default_factory=dict)
    missing: frozenset[str] = frozenset()
    """Folders in which it finds nothing."""
    asked: list[str] = field(default_factory=list)
    models: Any = None
    """Answered in place of the list."""

    async def list_models(self, _: web.Request) -> web.Response:
        if self.models is not None:
            return web.json_response(self.models)
        base = {"id": "chat", "root": "/volumes/data/model", "parent": None}
        loaded = [{"id": name, "root": folder, "parent": "chat"} for name, folder in self.adapters.items()]
        return web.json_response({"object": "list", "data": [base, *loaded]})

    async def load(self, request: web.Request) -> web.Response:
        content = await request.json()
        name, folder = content["lora_name"], content["lora_path"]
        self.asked.append(f"load {name}")
        if name in self.adapters:
            return self._refuse(400, f"The lora adapter '{name}' has already been loaded.")
        if folder in self.missing:
            return self._refuse(404, f"No adapter found for {folder}")
        self.adapters[name] = folder
        return web.Response(text=f"Success: LoRA adapter '{name}' added successfully.")

    async def unload(self, request: web.Request) -> web.Response:
        name = (await request.json())["lora_name"]
        self.asked.append(f"unload {name}")
        if self.adapters.pop(name, None) is None:
            return self._refuse(404, f"The lora adapter '{name}' cannot be found.")
        return web.Response(text=f"Success: LoRA adapter '{name}' removed successfully.")

    @staticmethod
    def _refuse(status: int, message: str) -> web.Response:
        return web.json_response({"error": {"message": message, "code": status}}, status=status)


@pytest.fixture
async def vllm(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PlayedVllm]:
    """A server on a port of its own, in place of the port that replicas have."""
    played = PlayedVllm()
    app = web.Application()
    app.add_routes(
        [
            web.get("/v1/models", played.list_models),
            web.post("/v1/load_lora_adapter", played.load),
            web.post("/v1/unload_lora_adapter", played.unload),
        ]
    )
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    monkeypatch.setattr(adapterloader, "SERVER_PORT", runner.addresses[0][1])
    yield played
    await runner.cleanup()


def target(*adapters: tuple[str, str], ip: str = "127.0.0.1") -> AdapterTarget:
    """The replica, and what it is to have."""
    return AdapterTarget("pod-1", ip, adapters=adapters)


async def settled(one: AdapterTarget) -> LoadedAdapters:
    """What the replica has after one round."""
    async with aiohttp.ClientSession() as session:
        return await settle(session, one)


async def test_what_is_missing_is_loaded_and_what_nobody_asks_for_is_unloaded(vllm: PlayedVllm) -> None:
    vllm.adapters = {"old": "/volumes/data/old", "law": LAW[1]}
    assert await settled(target(LAW, TAX)) == LoadedAdapters(dict((LAW, TAX)))
    assert vllm.asked == ["unload old", "load tax"]
    assert vllm.adapters == dict((LAW, TAX))


async def test_a_replica_that_has_all_is_left_alone(vllm: PlayedVllm) -> None:
    vllm.adapters = dict((LAW, TAX))
    assert await settled(target(TAX, LAW)) == LoadedAdapters(dict((LAW, TAX)))
    assert vllm.asked == []


async def test_an_adapter_that_lies_elsewhere_now_is_loaded_from_there(vllm: PlayedVllm) -> None:
    vllm.adapters = {"law": "/volumes/data/before"}
    assert (await settled(target(LAW))).folders == {"law": LAW[1]}
    assert vllm.asked == ["unload law", "load law"]


async def test_a_refusal_is_told_in_the_servers_words_and_the_others_are_loaded(vllm: PlayedVllm) -> None:
    vllm.missing = frozenset({LAW[1]})
    loaded = await settled(target(LAW, TAX))
    assert loaded == LoadedAdapters({"tax": TAX[1]}, "law: 404 No adapter found for /volumes/data/law")


@pytest.mark.parametrize("models", [[], {"data": "none"}, {"data": None}])
async def test_an_answer_that_is_no_list_changes_nothing(vllm: PlayedVllm, models: Any) -> None:
    vllm.models = models
    with pytest.raises(ValueError, match="no list of models"):
        await settled(target(LAW))
    assert vllm.asked == []


async def test_the_loader_tells_of_what_is_new_and_forgets_pods_that_are_gone(vllm: PlayedVllm) -> None:
    told: asyncio.Queue[str] = asyncio.Queue()
    loader: AdapterLoader[str] = AdapterLoader(interval_s=0.01, on_change=told.put_nowait)
    running = asyncio.create_task(loader.run())
    try:
        loader.watch("chat", (target(LAW), AdapterTarget("pod-2", "127.0.0.9", adapters=(LAW,))))
        assert await asyncio.wait_for(told.get(), 60) == "chat"
        assert loader.loaded == {"pod-1": LoadedAdapters(dict((LAW,)))}, "the other pod does not answer"
        loader.watch("chat", (target(LAW, TAX),))
        await asyncio.wait_for(told.get(), 60)
        assert loader.loaded["pod-1"].folders == dict((LAW, TAX))
        # A container that has ended and starts again has what its list said, and not what was loaded later.
        del vllm.adapters["tax"]
        vllm.missing = frozenset({TAX[1]})
        await asyncio.wait_for(told.get(), 60)
        assert loader.loaded["pod-1"].refused.startswith("tax: 404")
        loader.watch("chat", ())
        assert loader.loaded == {}
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
