"""Roles, bindings and service accounts: who may do what."""

from collections.abc import Callable
from typing import Any

import jwt
import pytest

from alidade_local.apiserver.service_accounts import ISSUER
from tests.local.apiserver.conftest import CONFIG_MAPS, GUEST, Api, Refused, config_map

Json = dict[str, Any]
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ROLES, BINDINGS = f"{RBAC}/namespaces/default/roles", f"{RBAC}/namespaces/default/rolebindings"
AS_GUEST = {"Authorization": f"Bearer {GUEST}"}


def role(*rules: Json, kind: str = "Role", name: str = "r", **more: Any) -> Json:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": name},
        "rules": list(rules),
        **more,
    }


def binding(subject: Json, kind: str = "RoleBinding", role_kind: str = "Role") -> Json:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": "r"}
    return {**role(kind=kind, name="b"), "subjects": [subject], "roleRef": reference}


def rule(verbs: str, resources: str, **more: Any) -> Json:
    return {"apiGroups": [""], "verbs": verbs.split(), "resources": resources.split(), **more}


GUEST_USER = {"kind": "User", "name": "guest"}


async def test_a_role_allows_its_verbs_in_its_namespace(api: Api) -> None:
    await api.post(ROLES, role(rule("get list", "configmaps")))
    await api.post(BINDINGS, binding(GUEST_USER))
    await api.post(CONFIG_MAPS, config_map("a"))
    assert (await api.get(f"{CONFIG_MAPS}/a", headers=AS_GUEST))["metadata"]["name"] == "a"
    assert len((await api.get(CONFIG_MAPS, headers=AS_GUEST))["items"]) == 1
    for method, path, words in (
        (
            "GET",
            f"{CONFIG_MAPS}?watch=1",
            'cannot watch resource "configmaps" in API group "" in the namespace "default"',
        ),
        ("DELETE", CONFIG_MAPS, 'cannot deletecollection resource "configmaps"'),
        ("GET", "/api/v1/namespaces/kube-system/configmaps", 'in the namespace "kube-system"'),
        ("GET", "/api/v1/configmaps", "at the cluster scope"),
        ("GET", "/api/v1/namespaces/default/secrets", 'cannot list resource "secrets"'),
    ):
        with pytest.raises(Refused) as refused:
            await api.call(method, path, headers=AS_GUEST)
        assert refused.value.code == 403
        assert words in refused.value.message


async def test_a_cluster_role_holds_where_it_is_bound(api: Api) -> None:
    await api.post(f"{RBAC}/clusterroles", role(rule("list", "configmaps"), kind="ClusterRole"))
    await api.post(BINDINGS, binding(GUEST_USER, role_kind="ClusterRole"))
    await api.get(CONFIG_MAPS, headers=AS_GUEST)
    with pytest.raises(Refused):
        await api.get("/api/v1/configmaps", headers=AS_GUEST)
    group = {"kind": "Group", "name": "system:authenticated"}
    await api.post(f"{RBAC}/clusterrolebindings", binding(group, kind="ClusterRoleBinding", role_kind="ClusterRole"))
    await api.get("/api/v1/configmaps", headers=AS_GUEST)


async def test_rules_can_name_objects_and_subresources(api: Api) -> None:
    await api.post(ROLES, role(rule("get", "configmaps", resourceNames=["mine"]), rule("*", "pods/log")))
    await api.post(BINDINGS, binding(GUEST_USER))
    await api.post(CONFIG_MAPS, config_map("mine"))
    await api.get(f"{CONFIG_MAPS}/mine", headers=AS_GUEST)
    with pytest.raises(Refused) as refused:
        await api.get(f"{CONFIG_MAPS}/yours", headers=AS_GUEST)
    assert refused.value.code == 403
    for path, code in (("p/log", 404), ("p", 403)):
        with pytest.raises(Refused) as refused:
            await api.get(f"/api/v1/namespaces/default/pods/{path}", headers=AS_GUEST)
        assert refused.value.code == code


async def test_cluster_roles_are_aggregated_by_label(api: Api) -> None:
    part = role(rule("list", "configmaps"), kind="ClusterRole", name="part")
    part["metadata"]["labels"] = {"to": "whole"}
    await api.post(f"{RBAC}/clusterroles", part)
    selectors = {"clusterRoleSelectors": [{"matchLabels": {"to": "whole"}}]}
    await api.post(f"{RBAC}/clusterroles", role(kind="ClusterRole", aggregationRule=selectors))
    await api.post(BINDINGS, binding(GUEST_USER, role_kind="ClusterRole"))
    await api.get(CONFIG_MAPS, headers=AS_GUEST)


async def service_account(api: Api) -> Json:
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "robot"}}
    await api.post("/api/v1/namespaces/default/serviceaccounts", account)
    made = await api.post(
        "/api/v1/namespaces/default/serviceaccounts/robot/token", {"spec": {"expirationSeconds": 900}}
    )
    status: Json = made["status"]
    return {"Authorization": f"Bearer {status['token']}"}


async def test_a_service_account_has_a_token_and_the_rights_it_is_bound_to(api: Api) -> None:
    robot = await service_account(api)
    who = await api.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, headers=robot)
    assert who["status"]["userInfo"]["username"] == "system:serviceaccount:default:robot"
    assert "system:serviceaccounts:default" in who["status"]["userInfo"]["groups"]
    with pytest.raises(Refused) as refused:
        await api.get(CONFIG_MAPS, headers=robot)
    assert refused.value.code == 403
    await api.post(ROLES, role(rule("list", "configmaps")))
    await api.post(BINDINGS, binding({"kind": "ServiceAccount", "name": "robot", "namespace": "default"}))
    await api.get(CONFIG_MAPS, headers=robot)
    asked = {"resourceAttributes": {"verb": "list", "resource": "configmaps", "namespace": "default"}}
    review = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    assert (await api.post(review, {"spec": asked}, headers=robot))["status"] == {"allowed": True}
    await api.delete("/api/v1/namespaces/default/serviceaccounts/robot")
    with pytest.raises(Refused) as refused:
        await api.get(CONFIG_MAPS, headers=robot)
    assert refused.value.code == 401


@pytest.mark.parametrize(
    "change",
    [
        lambda claims: {**claims, "exp": 1},
        lambda claims: {**claims, "iss": "https://elsewhere"},
        lambda claims: {**claims, "aud": ["another"]},
        lambda claims: {name: value for name, value in claims.items() if name != "exp"},
    ],
    ids=["expired", "other issuer", "other audience", "without expiry"],
)
async def test_a_token_must_be_current_and_for_this_cluster(api: Api, change: Callable[[Json], Json]) -> None:
    robot = await service_account(api)
    key = (api.server.settings.data_dir / "service-accounts.key").read_text()
    claims = jwt.decode(robot["Authorization"].split()[1], key, algorithms=["HS256"], audience=ISSUER)
    forged = jwt.encode(change(claims), key, algorithm="HS256")
    with pytest.raises(Refused) as refused:
        await api.get(CONFIG_MAPS, headers={"Authorization": f"Bearer {forged}"})
    assert refused.value.code == 401


async def test_a_token_signed_with_another_key_is_unknown(api: Api) -> None:
    robot = await service_account(api)
    claims = jwt.decode(robot["Authorization"].split()[1], options={"verify_signature": False})
    forged = jwt.encode(claims, "k" * 64, algorithm="HS256")
    with pytest.raises(Refused) as refused:
        await api.get(CONFIG_MAPS, headers={"Authorization": f"Bearer {forged}"})
    assert refused.value.code == 401


async def test_applying_what_is_absent_takes_the_right_to_create(api: Api) -> None:
    await api.post(ROLES, role(rule("patch", "configmaps")))
    await api.post(BINDINGS, binding(GUEST_USER))
    headers = {**AS_GUEST, "Content-Type": "application/apply-patch+yaml"}
    path = f"{CONFIG_MAPS}/a?fieldManager=guest"
    with pytest.raises(Refused, match='cannot create resource "configmaps"'):
        await api.call("PATCH", path, config_map("a"), headers=headers)
    await api.post(CONFIG_MAPS, config_map("a"))
    assert (await api.call("PATCH", path, config_map("a", x="1"), headers=headers))["data"] == {"x": "1"}
