"""Acting as somebody else: `kubectl --as USER --as-group GROUP`, for whoever may `impersonate` them."""

from multidict import CIMultiDictProxy

from alidade_local.apiserver.auth import UserInfo
from alidade_local.apiserver.errors import ApiError, quoted
from alidade_local.apiserver.rbac import Attributes, Authorizer

_SERVICE_ACCOUNT = "system:serviceaccount:"


def impersonated(user: UserInfo, headers: CIMultiDictProxy[str], authorizer: Authorizer) -> UserInfo:
    """Who the request is made as; the user itself where its headers say nothing."""
    name = headers.get("Impersonate-User", "")
    groups = headers.getall("Impersonate-Group", [])
    if not name:
        if groups:
            raise ApiError(500, "InternalError", f"requested {_asked(groups)} without impersonating a user")
        return user
    asked = [_attributes(name), *(Attributes("impersonate", resource="groups", name=group) for group in groups)]
    for attributes in asked:
        if not authorizer.allows(user, attributes):
            raise ApiError(
                403,
                "Forbidden",
                f"{attributes.resource} {quoted(attributes.name)} is forbidden: {attributes.refusal(user)}",
                {"name": attributes.name, "kind": attributes.resource},
            )
    return UserInfo(name, tuple(groups) or _groups_of(name), headers.get("Impersonate-Uid", ""))


def _asked(groups: list[str]) -> str:
    return f"[{' '.join(f'Group {group}' for group in groups)}]"


def _attributes(name: str) -> Attributes:
    if not name.startswith(_SERVICE_ACCOUNT):
        return Attributes("impersonate", resource="users", name=name)
    namespace, _, account = name.removeprefix(_SERVICE_ACCOUNT).partition(":")
    return Attributes("impersonate", resource="serviceaccounts", name=account, namespace=namespace)


def _groups_of(name: str) -> tuple[str, ...]:
    if not name.startswith(_SERVICE_ACCOUNT):
        return ()
    namespace = name.removeprefix(_SERVICE_ACCOUNT).partition(":")[0]
    return ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
