"""The webhook over HTTPS. Every replica serves it, whoever holds the lease: it looks, and changes nothing."""

import asyncio
import contextlib
import json
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from alidade_operator.admission import Foresight, MalformedReviewError, review
from alidade_operator.api import Api
from alidade_operator.certificates import CertificateError, Folder, SelfSigned, Source, load
from alidade_operator.config import Admission, OperatorConfig, listening_host

_log = logging.getLogger(__name__)

PATH = "/validate"
# An object of etcd's limit twice, the new and the old, and room for what is around them.
_MOST_BYTES = 8 * 1024 * 1024
_FIRST_RETRY_S = 1.0


def certificate_source(config: OperatorConfig, api: Api) -> Source:
    """Where the configuration says that the certificate comes from."""
    folder = config.admission.certificate_folder
    return Folder(Path(folder)) if folder is not None else SelfSigned(api, config)


class AdmissionServer:
    """Answers AdmissionReviews once there is a certificate, and follows its renewal."""

    def __init__(
        self, settings: Admission, source: Source, foresight: Foresight, *, is_ready: Callable[[], bool]
    ) -> None:
        """is_ready: whether enough of the cluster is known to judge."""
        self._settings = settings
        self._source = source
        self._foresight = foresight
        self._is_ready = is_ready
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._loaded: tuple[bytes, bytes] | None = None
        self._task: asyncio.Task[None] | None = None
        self.port: int | None = None
        """Where it listens; None before it does."""
        app = web.Application(client_max_size=_MOST_BYTES)
        app.add_routes([web.post(PATH, self._validate)])
        self._runner = web.AppRunner(app, access_log=None)

    def start(self) -> asyncio.Task[None]:
        """Begins; the task runs for ever."""
        self._task = asyncio.create_task(self._run(), name="alidade admission")
        return self._task

    async def stop(self) -> None:
        """Ends it; reviews under way are answered."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._runner.cleanup()

    async def _run(self) -> None:
        delay_s = _FIRST_RETRY_S
        while True:
            try:
                await self._refresh()
            except CertificateError as error:
                # What is loaded stays; a webhook without any does not listen, and is not asked.
                _log.warning("no new certificate", extra={"action": "listen", "why": str(error), "in_s": delay_s})
                await asyncio.sleep(delay_s)
                delay_s = min(delay_s * 2, self._source.look_again_s)
                continue
            delay_s = _FIRST_RETRY_S
            await asyncio.sleep(self._source.look_again_s)

    async def _refresh(self) -> None:
        found = await self._source.read()
        if found == self._loaded:
            return
        load(self._context, *found)
        is_first, self._loaded = self._loaded is None, found
        if is_first:
            await self._listen()
        else:
            _log.info("certificate loaded", extra={"action": "listen", "why": "it has changed"})

    async def _listen(self) -> None:
        await self._runner.setup()
        host = listening_host(self._settings.host)
        site = web.TCPSite(self._runner, host, self._settings.port, ssl_context=self._context)
        await site.start()
        address, self.port = self._runner.addresses[0][:2]
        _log.info("serving admission", extra={"action": "listen", "host": address, "port": self.port})

    async def _validate(self, request: web.Request) -> web.Response:
        if not self._is_ready():
            return web.Response(status=503, text="the resources have not been listed yet\n")
        try:
            answer = await review(json.loads(await request.read()), self._foresight)
        except (MalformedReviewError, ValueError, RecursionError) as error:
            return web.Response(status=400, text=f"no AdmissionReview: {error}\n")
        return web.json_response(answer)
