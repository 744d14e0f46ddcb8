"""Questions about users: who am I, may I, whose token is this. Answered, never stored."""

from typing import Any

from alidade_local.apiserver.auth import Authenticator, UserInfo
from alidade_local.apiserver.errors import bad_request, invalid_review, no_such_resource
from alidade_local.apiserver.rbac import Attributes, Authorizer

Json = dict[str, Any]


class Reviewer:
    """Fills in the status of reviews."""

    def __init__(self, authenticator: Authenticator, authorizer: Authorizer) -> None:
        self._authenticator = authenticator
        self._authorizer = authorizer

    def review(self, kind: str, body: Json, user: UserInfo) -> Json:
        """The review with its status."""
        spec = body.get("spec") or {}
        match kind:
            case "SelfSubjectAccessReview":
                status = self._access(user, spec)
            case "SubjectAccessReview" | "LocalSubjectAccessReview":
                if not spec.get("user") and not spec.get("groups"):
                    raise invalid_review("spec.user", "", "at least one of user or group must be specified")
                status = self._access(UserInfo(spec.get("user", ""), tuple(spec.get("groups") or ())), spec)
            case "SelfSubjectRulesReview":
                status = self._rules(user, spec.get("namespace", ""))
            case "TokenReview":
                if not spec.get("token"):
                    raise bad_request("token is required for TokenReview in authentication")
                status = self._token(spec["token"])
            case "SelfSubjectReview":
                status = {"userInfo": _shown(user)}
            case _:
                raise no_such_resource()
        return {**body, "metadata": {"creationTimestamp": None, **(body.get("metadata") or {})}, "status": status}

    def _access(self, user: UserInfo, spec: Json) -> Json:
        asked = spec.get("resourceAttributes")
        if asked is None:
            if not spec.get("nonResourceAttributes"):
                detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
                raise invalid_review("spec.resourceAttributes", None, detail)
            return {"allowed": user.is_admin}
        attributes = Attributes(
            verb=asked.get("verb", ""),
            group=asked.get("group", ""),
            resource=asked.get("resource", ""),
            subresource=asked.get("subresource", ""),
            name=asked.get("name", ""),
            namespace=asked.get("namespace", ""),
        )
        return {"allowed": self._authorizer.allows(user, attributes)}

    def _rules(self, user: UserInfo, namespace: str) -> Json:
        rules = list(self._authorizer.rules(user, namespace))
        return {
            "resourceRules": [rule for rule in rules if rule.get("resources")],
            "nonResourceRules": [rule for rule in rules if rule.get("nonResourceURLs")],
            "incomplete": False,
        }

    def _token(self, token: str) -> Json:
        user = self._authenticator.user_of_token(token)
        if user is None:
            return {"authenticated": False, "error": "the token is not known to this cluster"}
        return {"authenticated": True, "user": _shown(user)}


def _shown(user: UserInfo) -> Json:
    shown: Json = {"username": user.name, "groups": list(user.all_groups)}
    if user.uid:
        shown["uid"] = user.uid
    return shown
