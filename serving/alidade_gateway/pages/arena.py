"""The arena's HTTP API: ask two models, see both answer, vote, and only then learn who they are."""

import asyncio
import logging
from collections.abc import Mapping
from http import HTTPStatus
from threading import Lock
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from alidade_gateway.forwarding import Forwarder
from alidade_gateway.gateway import Gateway
from alidade_gateway.headers import REQUEST_ID
from alidade_gateway.pages.asking import Unanswered, ask
from alidade_gateway.pages.comparisons import Comparison, Comparisons, Side, State, check_history
from alidade_gateway.pages.rates import Rate
from alidade_gateway.pages.standings import Standing, Standings
from alidade_gateway.pages.votes import Messages, Player, Verdict, VoteFolder
from alidade_serving.front.bodies import read_json
from alidade_serving.front.refusals import Refusal, invalid
from alidade_serving.front.streaming import EventStream

_log = logging.getLogger("alidade_serving")

MOST_MESSAGE = 8000
"""Characters."""
PER_MINUTE = 60
"""Comparisons that one address may ask for; behind a proxy that is everybody."""
_MOST_BODY_BYTES = 1 << 16  # four bytes a character, and escapes
_SIDES = ("left", "right")


class Arena:
    """Handlers, and what they share."""

    def __init__(self, gateway: Gateway, forwarder: web.AppKey[Forwarder]) -> None:
        settings = gateway.settings
        assert settings.votes is not None, "settings ask for it"
        self._gateway = gateway
        self._forwarder = forwarder
        self._comparisons = Comparisons()
        self._rate = Rate(per_minute=PER_MINUTE)
        self._votes = VoteFolder(settings.votes)
        self._standings = Standings(side.player for side in self._sides())
        self._ranked = 0, self._standings.ranked()  # after how many votes
        self._reading = Lock()

    async def compare(self, request: web.Request) -> web.StreamResponse:
        """POST {"message", "after"?}: events with the identifier, pieces of both answers, and how they ended."""
        with self._gateway.visit():
            self._rate.take(request.remote or "")
            prompt = self._prompt(await self._document(request, ("message", "after")))
            with self._comparisons.begun(prompt, *self._sides()) as comparison:
                async with EventStream(request, self._gateway.settings.write_timeout_s) as stream:
                    if self._gateway.draining:
                        stream.response.force_close()
                    await stream.send({"id": comparison.id})
                    await self._answer(request, comparison, stream)
                    whole = comparison.state is State.ANSWERED
                    await stream.send({"answered": whole, **({"alike": comparison.alike} if whole else {})})
            return stream.response

    async def vote(self, request: web.Request) -> web.StreamResponse:
        """POST {"vote"}: keeps the vote and tells who was who."""
        with self._gateway.visit():
            document = await self._document(request, ("vote",))
            try:
                verdict = Verdict(str(document.get("vote")))
            except ValueError:
                raise invalid(f"vote is one of {', '.join(Verdict)}.", "vote") from None
            comparison = self._comparisons.find(request.match_info["id"])
            # A client that leaves now has voted all the same.
            await asyncio.shield(self._keep(comparison, verdict))
            return web.json_response(
                {"vote": verdict.value, **{name: _named(getattr(comparison, name).player) for name in _SIDES}}
            )

    async def ratings(self, request: web.Request) -> web.StreamResponse:  # noqa: ARG002
        """GET: every model's rating, by all votes that are kept."""
        try:
            votes, ranked = await asyncio.to_thread(self._read_ratings)
        except OSError as error:
            raise _disk_trouble("The votes cannot be read", error) from error
        return web.json_response({"votes": votes, "ratings": [_shown(standing) for standing in ranked]})

    async def close(self, application: web.Application) -> None:  # noqa: ARG002
        """To be called at the end."""
        self._votes.close()

    async def _keep(self, comparison: Comparison, verdict: Verdict) -> None:
        try:
            with comparison.voted(verdict) as vote:
                await asyncio.to_thread(self._votes.add, vote)
        except OSError as error:
            raise _disk_trouble("The vote could not be kept", error) from error
        self._gateway.voted()

    def _read_ratings(self) -> tuple[int, list[Standing]]:
        """Votes and ratings. It ends also where the client has left, so that no vote is read and not counted."""
        with self._reading:
            self._standings.add(self._votes.new_games())
            if self._ranked[0] != self._standings.votes:
                self._ranked = self._standings.votes, self._standings.ranked()
            return self._ranked

    async def _document(self, request: web.Request, fields: tuple[str, ...]) -> dict[str, Any]:
        """The body. Raises Refusal: 415 for what another site's form could send, 422 for unknown fields."""
        if request.content_type != "application/json":
            raise Refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "media_type", "Send Content-Type: application/json.")
        timeout_s = self._gateway.settings.read_timeout_s
        document = await read_json(request, max_bytes=_MOST_BODY_BYTES, timeout_s=timeout_s)
        for name in document.keys() - set(fields):
            raise invalid(f"{name[:50]!r} is not known here; what is known is {', '.join(fields)}.", name[:50])
        return document

    def _prompt(self, document: Mapping[str, Any]) -> Messages:
        message, after = document.get("message"), document.get("after")
        if not isinstance(message, str) or not message.strip():
            raise invalid("message is missing or empty; write what both models are to answer.", "message")
        if len(message) > MOST_MESSAGE:
            raise invalid(f"message has {len(message)} characters; at most {MOST_MESSAGE} are taken.", "message")
        try:
            message.encode()
        except UnicodeEncodeError as error:
            raise invalid(f"message holds half a character at {error.start}.", "message") from None
        if after is None:
            return [{"role": "user", "content": message}]
        if not isinstance(after, str):
            raise invalid("after is the identifier of the comparison that is followed up.", "after")
        turns = self._comparisons.find(after).turns_after()
        check_history(turns)
        return [*turns, {"role": "user", "content": message}]

    def _sides(self) -> tuple[Side, Side]:
        settings, backends = self._gateway.settings, self._gateway.backends
        stable = Side(backends.stable, Player(settings.name, backends.stable.model), settings.name)
        if backends.against is not None:
            name = settings.arena_against_name or backends.against.name
            return stable, Side(backends.against, Player(name, backends.against.model), name)
        assert backends.canary is not None, "settings ask for one or the other"
        return stable, Side(backends.canary, Player(f"{settings.name}-canary", backends.canary.model), settings.name)

    async def _answer(self, request: web.Request, comparison: Comparison, stream: EventStream) -> None:
        """Both answers at once. The comparison is answered when both are whole."""
        turn = asyncio.Lock()
        tasks = [asyncio.create_task(self._answer_of(request, comparison, name, stream, turn)) for name in _SIDES]
        try:
            if all(await asyncio.gather(*tasks)):
                comparison.state = State.ANSWERED
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _answer_of(
        self, request: web.Request, comparison: Comparison, name: str, stream: EventStream, turn: asyncio.Lock
    ) -> bool:
        async def tell(event: dict[str, Any]) -> None:
            async with turn:
                await stream.send({"side": name, **event})

        try:
            await ask(
                getattr(comparison, name),
                comparison.prompt,
                request.app[self._forwarder],
                _headers(request),
                silence_s=self._gateway.settings.answer_timeout_s,
                on_text=lambda text: tell({"text": text}),
            )
        except Unanswered as trouble:
            await tell({"failed": str(trouble)})
            return False
        await tell({"ended": True})
        return True


def _headers(request: web.Request) -> CIMultiDict[str]:
    """What both servers get, and nothing that tells them from one another."""
    headers = CIMultiDict({"Content-Type": "application/json", REQUEST_ID: request["id"]})
    if "Authorization" in request.headers:
        headers["Authorization"] = request.headers["Authorization"]
    return headers


def _named(player: Player) -> dict[str, str]:
    return {"name": player.name, "model": player.model}


def _shown(standing: Standing) -> dict[str, Any]:
    low, high = standing.interval or (None, None)
    return {
        **_named(standing.player),
        "rating": round(standing.rating, 1),
        "low": None if low is None else round(low, 1),
        "high": None if high is None else round(high, 1),
        "votes": standing.games,
    }


def _disk_trouble(what: str, error: OSError) -> Refusal:
    _log.error("arena: %s: %s", what, error)
    return Refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "storage",
        f"{what}: {error.strerror or error}. Whoever runs the arena has to look at its volume; then try again.",
        retry_after_s=30,
    )
