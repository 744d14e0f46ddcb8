"""Who asks: bearer tokens, and what their users may do."""

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from alidade_local.apiserver.errors import unauthorized

ADMIN_GROUP = "system:masters"


@dataclass(frozen=True)
class UserInfo:
    """A user behind a token."""

    name: str
    groups: tuple[str, ...] = ()
    uid: str = ""

    @property
    def is_admin(self) -> bool:
        """Whether the user may do everything."""
        return ADMIN_GROUP in self.groups

    @property
    def all_groups(self) -> tuple[str, ...]:
        """Groups including the one that every known user is in."""
        return (*self.groups, "system:authenticated")


class Authenticator:
    """Finds the user of a request by its bearer token.

    tokens: the tokens known from the start.
    other_tokens: asked for the user of any other one (service accounts').
    """

    def __init__(self, tokens: Mapping[str, UserInfo], other_tokens: Callable[[str], UserInfo | None]) -> None:
        self._tokens = {token.encode(): user for token, user in tokens.items() if token}
        self._other_tokens = other_tokens

    def user_of_token(self, token: str) -> UserInfo | None:
        """The user of a token; compared in constant time."""
        given = token.encode()
        found = None
        for known, user in self._tokens.items():
            if hmac.compare_digest(known, given):
                found = user
        return found or self._other_tokens(token)

    def user(self, authorization: str | None) -> UserInfo:
        """The user of an Authorization header, or 401."""
        scheme, _, token = (authorization or "").partition(" ")
        readable = scheme.lower() == "bearer" and token.isascii()  # headers may hold any bytes
        user = self.user_of_token(token.strip()) if readable else None
        if user is None:
            raise unauthorized()
        return user
