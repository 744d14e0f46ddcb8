"""Role-based access control: what the stored roles and bindings let a user do."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from alidade_local.apiserver.auth import UserInfo
from alidade_local.apiserver.selectors import labels_of_selector
from alidade_local.apiserver.storage import Store

Json = dict[str, Any]

_GROUP = "rbac.authorization.k8s.io"
_SERVICE_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True)
class Attributes:
    """What somebody wants to do."""

    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    namespace: str = ""
    """Empty for cluster-scoped objects and for all namespaces."""

    @property
    def full_resource(self) -> str:
        """The resource with its subresource, as rules write it."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource

    def refusal(self, user: UserInfo) -> str:
        """The sentence that says what the user may not."""
        where = f'in the namespace "{self.namespace}"' if self.namespace else "at the cluster scope"
        return (
            f'User "{user.name}" cannot {self.verb} resource "{self.full_resource}" in API group "{self.group}" {where}'
        )


class Authorizer:
    """Answers from the roles and bindings as they are stored at the moment of asking."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def allows(self, user: UserInfo, attributes: Attributes) -> bool:
        """Whether some rule lets the user do it."""
        if user.is_admin:
            return True
        return any(_covers(rule, attributes) for rule in self.rules(user, attributes.namespace))

    def rules(self, user: UserInfo, namespace: str) -> Iterator[Json]:
        """All rules that hold for a user in a namespace (or, without one, in the whole cluster)."""
        if user.is_admin:
            yield {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}
            yield {"verbs": ["*"], "nonResourceURLs": ["*"]}
            return
        for binding in self._store.all(f"clusterrolebindings.{_GROUP}"):
            if _binds(binding.obj, user, ""):
                yield from self._role_rules(binding.obj["roleRef"], "")
        if not namespace:
            return
        for binding in self._store.all(f"rolebindings.{_GROUP}", namespace):
            if _binds(binding.obj, user, namespace):
                yield from self._role_rules(binding.obj["roleRef"], namespace)

    def _role_rules(self, reference: Json, namespace: str) -> Iterable[Json]:
        if reference.get("kind") == "ClusterRole":
            role = self._store.get(f"clusterroles.{_GROUP}", "", reference.get("name", ""))
            return self._cluster_rules(role.obj) if role else ()
        role = self._store.get(f"roles.{_GROUP}", namespace, reference.get("name", ""))
        return (role.obj.get("rules") or ()) if role else ()

    def _cluster_rules(self, role: Json) -> Iterator[Json]:
        selectors = (role.get("aggregationRule") or {}).get("clusterRoleSelectors") or ()
        if not selectors:
            yield from role.get("rules") or ()
            return
        for selector in map(labels_of_selector, selectors):
            for part in self._store.all(f"clusterroles.{_GROUP}"):
                if part.uid != role["metadata"]["uid"] and selector.matches(part.labels):
                    yield from part.obj.get("rules") or ()


def _binds(binding: Json, user: UserInfo, namespace: str) -> bool:
    for subject in binding.get("subjects") or ():
        name = subject.get("name", "")
        match subject.get("kind"):
            case "User" if name == user.name:
                return True
            case "Group" if name in user.all_groups:
                return True
            case "ServiceAccount" if user.name == f"{_SERVICE_ACCOUNT}{subject.get('namespace') or namespace}:{name}":
                return True
    return False


def _covers(rule: Json, attributes: Attributes) -> bool:
    names = rule.get("resourceNames") or ()
    return (
        _has(rule.get("verbs"), attributes.verb)
        and _has(rule.get("apiGroups"), attributes.group)
        and _has_resource(rule.get("resources") or (), attributes)
        and (not names or attributes.name in names)
    )


def _has(values: list[str] | None, wanted: str) -> bool:
    return wanted in (values or ()) or "*" in (values or ())


def _has_resource(resources: Iterable[str], attributes: Attributes) -> bool:
    full = attributes.full_resource
    anything = f"*/{attributes.subresource}" if attributes.subresource else ""
    return any(item in ("*", full) or (anything and item == anything) for item in resources)
