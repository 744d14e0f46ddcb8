"""Validating webhooks: who is asked what, what an answer does, and what happens without one."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from alidade_local.pki import Certificates
from tests.local.apiserver.conftest import Api, Refused

HOOKS = "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations"
MAPS = "/api/v1/namespaces/default/configmaps"
Json = dict[str, Any]
EVERYTHING: Json = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]}


class Hook:
    """A webhook over TLS that keeps what it is asked, and answers as the test says."""

    def __init__(self, certificates: Certificates) -> None:
        self.asked: list[Json] = []
        self.answer: Json = {"allowed": True}
        self.delay_s = 0.0
        self.uid: str | None = None
        self.before_answer: Any = None
        self._bundle = base64.b64encode(certificates.ca.read_bytes()).decode()
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(certificates.cert, certificates.key)
        app = web.Application()
        app.add_routes([web.post("/check", self._answer)])
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def start(self) -> None:
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=self._context).start()

    async def _answer(self, request: web.Request) -> web.Response:
        review = await request.json()
        self.asked.append(review["request"])
        await asyncio.sleep(self.delay_s)
        if self.before_answer is not None:
            await self.before_answer()
        response = {"uid": self.uid or review["request"]["uid"], **self.answer}
        return web.json_response({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response})

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.runner.addresses[0][1]}/check"

    def configuration(self, name: str = "hooks", **changes: Any) -> Json:
        hook = {
            "name": "check.alidade.test",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "clientConfig": {"url": self.url, "caBundle": self._bundle},
            "rules": [
                {
                    "operations": ["CREATE", "UPDATE"],
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "resources": ["configmaps"],
                }
            ],
        }
        return {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": "ValidatingWebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [hook | changes],
        }


@pytest.fixture
async def hook(certificates: Certificates) -> AsyncIterator[Hook]:
    found = Hook(certificates)
    await found.start()
    yield found
    await found.runner.cleanup()


def config_map(name: str = "one", **data: str) -> Json:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


async def test_it_is_asked_with_the_new_object_and_the_old_one(api: Api, hook: Hook) -> None:
    await api.post(HOOKS, hook.configuration())
    await api.post(MAPS, config_map(a="1"))
    await api.put(f"{MAPS}/one", config_map(a="2"))
    await api.merge(f"{MAPS}/one", {"data": {"a": "3"}})
    await api.apply(f"{MAPS}/one", config_map(b="4"))
    await api.apply(f"{MAPS}/two", config_map("two", c="5"))
    told = [
        (one["operation"], one["name"], (one["oldObject"] or {}).get("data"), one["object"]["data"])
        for one in hook.asked
    ]
    assert told == [
        ("CREATE", "one", None, {"a": "1"}),
        ("UPDATE", "one", {"a": "1"}, {"a": "2"}),
        ("UPDATE", "one", {"a": "2"}, {"a": "3"}),
        ("UPDATE", "one", {"a": "3"}, {"a": "3", "b": "4"}),
        ("CREATE", "two", None, {"c": "5"}),
    ]
    first = hook.asked[0]
    assert first["kind"] == {"group": "", "version": "v1", "kind": "ConfigMap"}
    assert first["resource"] == {"group": "", "version": "v1", "resource": "configmaps"}
    assert (first["namespace"], first["userInfo"]["username"], first["dryRun"]) == ("default", "admin", False)
    assert first["object"]["metadata"]["uid"], "as it would be stored"


async def test_a_refusal_keeps_the_object_out_and_is_told(api: Api, hook: Hook) -> None:
    await api.post(HOOKS, hook.configuration())
    hook.answer = {"allowed": False, "status": {"code": 422, "reason": "Invalid", "message": "it is too blue"}}
    with pytest.raises(Refused) as caught:
        await api.post(MAPS, config_map())
    assert caught.value.code == 422
    assert caught.value.message == 'admission webhook "check.alidade.test" denied the request: it is too blue'
    assert await api.gone(f"{MAPS}/one")
    hook.answer = {"allowed": False}
    with pytest.raises(Refused, match="denied the request without explanation"):
        await api.post(MAPS, config_map())


async def test_warnings_reach_the_client(api: Api, hook: Hook) -> None:
    await api.post(HOOKS, hook.configuration())
    hook.answer = {"allowed": True, "warnings": ["it is rather blue"]}
    async with api.session.post(api.server.url + MAPS, json=config_map()) as answer:
        assert answer.status == 201
        assert answer.headers["Warning"] == '299 - "it is rather blue"'


@pytest.mark.parametrize(
    "changes",
    [
        {"namespaceSelector": {"matchLabels": {"team": "a"}}},
        {"objectSelector": {"matchLabels": {"team": "a"}}},
        {"rules": [EVERYTHING | {"operations": ["DELETE"]}]},
        {"rules": [EVERYTHING | {"apiGroups": ["apps"]}]},
        {"rules": [EVERYTHING | {"scope": "Cluster"}]},
    ],
)
async def test_who_is_not_meant_is_not_asked(api: Api, hook: Hook, changes: Json) -> None:
    await api.post(HOOKS, hook.configuration(**changes))
    await api.post(MAPS, config_map())
    assert hook.asked == []


async def test_namespaces_are_selected_by_their_labels(api: Api, hook: Hook) -> None:
    await api.merge("/api/v1/namespaces/default", {"metadata": {"labels": {"team": "a"}}})
    await api.post(HOOKS, hook.configuration(namespaceSelector={"matchLabels": {"team": "a"}}))
    await api.post(MAPS, config_map())
    assert len(hook.asked) == 1


@pytest.mark.parametrize("trouble", ["nobody listens", "too slow", "another uid", "an unknown authority"])
@pytest.mark.parametrize("policy", ["Fail", "Ignore"])
async def test_without_an_answer_the_failure_policy_decides(api: Api, hook: Hook, trouble: str, policy: str) -> None:
    changes: Json = {"failurePolicy": policy, "timeoutSeconds": 1}
    if trouble == "an unknown authority":
        changes["clientConfig"] = {"url": hook.url}
    await api.post(HOOKS, hook.configuration(**changes))
    if trouble == "nobody listens":
        await hook.runner.cleanup()
    hook.delay_s = 5 if trouble == "too slow" else 0
    hook.uid = "another" if trouble == "another uid" else None
    if policy == "Ignore":
        await api.post(MAPS, config_map())
        return
    with pytest.raises(Refused) as caught:
        await api.post(MAPS, config_map())
    assert caught.value.code == 500
    assert caught.value.message.startswith('Internal error occurred: failed calling webhook "check.alidade.test": ')
    assert await api.gone(f"{MAPS}/one")


async def test_its_own_configuration_can_always_be_mended(api: Api, hook: Hook) -> None:
    await api.post(HOOKS, hook.configuration(rules=[EVERYTHING]))
    hook.answer = {"allowed": False}
    await api.delete(f"{HOOKS}/hooks")
    await api.post(MAPS, config_map())


async def test_what_changes_meanwhile_is_asked_about_anew(api: Api, hook: Hook) -> None:
    await api.post(MAPS, config_map(a="1"))
    await api.post(
        HOOKS, hook.configuration(objectSelector={"matchExpressions": [{"key": "quiet", "operator": "DoesNotExist"}]})
    )

    async def meddle() -> None:
        hook.before_answer = None
        await api.delete(f"{HOOKS}/hooks")
        await api.merge(f"{MAPS}/one", {"data": {"b": "2"}})
        await api.post(HOOKS, hook.configuration())

    hook.before_answer = meddle
    await api.merge(f"{MAPS}/one", {"data": {"c": "3"}})
    assert [one["object"]["data"] for one in hook.asked] == [{"a": "1", "c": "3"}, {"a": "1", "b": "2", "c": "3"}]
    assert (await api.get(f"{MAPS}/one"))["data"] == {"a": "1", "b": "2", "c": "3"}


async def test_a_dry_run_is_asked_about_too_and_writes_nothing(api: Api, hook: Hook) -> None:
    await api.post(HOOKS, hook.configuration())
    await api.post(f"{MAPS}?dryRun=All", config_map())
    assert [one["dryRun"] for one in hook.asked] == [True]
    assert await api.gone(f"{MAPS}/one")
