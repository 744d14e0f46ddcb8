"""Questions about users: who am I, may I, whose token is this. Answered, never stored."""

from typing import Any

from alidade_local.apiserver.auth import Authenticator, UserInfo
from alidade_local.apiserver.errors import ApiError

Json = dict[str, Any]

_EVERYTHING = "the user is an administrator of this cluster"


def review(kind: str, body: Json, user: UserInfo, authenticator: Authenticator) -> Json:
    """The review with its status filled in."""
    spec = body.get("spec") or {}
    match kind:
        case "SelfSubjectAccessReview":
            status = _access(user)
        case "SubjectAccessReview":
            groups = tuple(spec.get("groups") or ())
            status = _access(UserInfo(spec.get("user", ""), groups))
        case "SelfSubjectRulesReview":
            status = _rules(user)
        case "TokenReview":
            status = _token(spec.get("token", ""), authenticator)
        case "SelfSubjectReview":
            status = {"userInfo": _user(user)}
        case _:
            raise ApiError(404, "NotFound", "the server could not find the requested resource")
    return {**body, "metadata": {"creationTimestamp": None, **(body.get("metadata") or {})}, "status": status}


def _user(user: UserInfo) -> Json:
    shown: Json = {"username": user.name, "groups": list(user.all_groups)}
    if user.uid:
        shown["uid"] = user.uid
    return shown


def _access(user: UserInfo) -> Json:
    return {"allowed": True, "reason": _EVERYTHING} if user.is_admin else {"allowed": False}


def _rules(user: UserInfo) -> Json:
    if not user.is_admin:
        return {"resourceRules": [], "nonResourceRules": [], "incomplete": False}
    everything = ["*"]
    return {
        "resourceRules": [{"verbs": everything, "apiGroups": everything, "resources": everything}],
        "nonResourceRules": [{"verbs": everything, "nonResourceURLs": everything}],
        "incomplete": False,
    }


def _token(token: str, authenticator: Authenticator) -> Json:
    user = authenticator.user_of_token(token)
    if user is None:
        return {"authenticated": False, "error": "the token is not known to this cluster"}
    return {"authenticated": True, "user": _user(user)}
