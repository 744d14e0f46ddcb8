"""Tokens of service accounts: made on request, good for a while and for as long as their account exists."""

import secrets
import time
from pathlib import Path
from typing import Any

import jwt

from alidade_local.apiserver import timestamps
from alidade_local.apiserver.auth import UserInfo
from alidade_local.apiserver.errors import FieldError, invalid, invalid_object
from alidade_local.apiserver.rest import Target
from alidade_local.apiserver.storage import Store, Stored

Json = dict[str, Any]

ACCOUNTS_KEY = "serviceaccounts."
ISSUER = "https://kubernetes.default.svc.cluster.local"
_ALGORITHM = "HS256"
_SHORTEST_S, _LONGEST_S, _DEFAULT_S = 600, 2**32, 3600


def signing_key(path: Path) -> str:
    """The key that signs tokens, made on first use and readable by its owner only."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_hex(32))
    return path.read_text()


class ServiceAccountTokens:
    """Makes tokens and recognises them."""

    def __init__(self, store: Store, key: str) -> None:
        self._store = store
        self._key = key

    def answer(self, target: Target, account: Stored, request: Json) -> Json:
        """The TokenRequest with its token."""
        spec = request.get("spec") or {}
        lifetime = spec.get("expirationSeconds") or _DEFAULT_S
        if not isinstance(lifetime, int) or not _SHORTEST_S <= lifetime <= _LONGEST_S:
            error: FieldError = invalid(
                "spec.expirationSeconds",
                lifetime,
                f"may not specify a duration less than 10 minutes or over {_LONGEST_S}",
            )
            raise invalid_object(target.resource, target.name, [error])
        now = int(time.time())
        claims = {
            "iss": ISSUER,
            "sub": f"system:serviceaccount:{account.namespace}:{account.name}",
            "aud": spec.get("audiences") or [ISSUER],
            "iat": now,
            "exp": now + lifetime,
            "kubernetes.io": {
                "namespace": account.namespace,
                "serviceaccount": {"name": account.name, "uid": account.uid},
            },
        }
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": account.name, "namespace": account.namespace, "creationTimestamp": timestamps.now()},
            "spec": {**spec, "audiences": claims["aud"], "expirationSeconds": lifetime},
            "status": {
                "token": jwt.encode(claims, self._key, algorithm=_ALGORITHM),
                "expirationTimestamp": timestamps.in_seconds(lifetime),
            },
        }

    def user(self, token: str) -> UserInfo | None:
        """The service account of a token that is still good."""
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[_ALGORITHM],
                issuer=ISSUER,
                audience=ISSUER,
                options={"require": ["exp", "sub"]},
            )
        except jwt.InvalidTokenError:
            return None
        bound = claims["kubernetes.io"]
        namespace, account = bound["namespace"], bound["serviceaccount"]
        stored = self._store.get(ACCOUNTS_KEY, namespace, account["name"])
        if stored is None or stored.uid != account["uid"]:
            return None
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}")
        return UserInfo(claims["sub"], groups, account["uid"])
