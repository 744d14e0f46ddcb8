"""The webhook's certificate: from a mounted folder, or signed by the operator itself and shared by its replicas."""

import asyncio
import base64
import logging
import os
import ssl
from pathlib import Path
from typing import Protocol

from alidade_operator.api import SECRET, WEBHOOK_CONFIGURATION, Api, ApiError, JsonObject
from alidade_operator.config import OperatorConfig
from alidade_operator.selfsigned import Signed, is_good_for_long, signed

_log = logging.getLogger(__name__)

CERTIFICATE, KEY, AUTHORITY, AUTHORITY_KEY = "tls.crt", "tls.key", "ca.crt", "ca.key"


class Source(Protocol):
    """Where the certificate comes from."""

    @property
    def look_again_s(self) -> float:
        """Seconds to the next look whether it has changed."""

    async def read(self) -> tuple[bytes, bytes]:
        """Certificate and key in PEM, as they are now; raises CertificateError."""


class CertificateError(RuntimeError):
    """There is no certificate yet, or none that can be used; the message says what is missing."""


class Folder:
    """Files that somebody else renews, such as cert-manager through a mounted Secret."""

    look_again_s = 10.0

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> tuple[bytes, bytes]:
        """As `Source.read`."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> tuple[bytes, bytes]:
        try:
            # The link that a mounted Secret's files lie behind is followed once, so that both are of one version.
            version = (self._path / "..data").resolve() if (self._path / "..data").exists() else self._path
            return (version / CERTIFICATE).read_bytes(), (version / KEY).read_bytes()
        except OSError as error:
            raise CertificateError(f"{error.filename} cannot be read ({error.strerror})") from error


class SelfSigned:
    """A certificate of the operator's own in a Secret, whose authority the webhook's configuration is told.

    Any replica makes and renews it; the Secret's resource version lets one of them win. The configuration is told
    before the certificate is used, and knows the authority before as well, so that none is ever shown that it does not
    know.
    """

    def __init__(self, api: Api, config: OperatorConfig) -> None:
        self._api = api
        self._namespace = config.operator_namespace
        self._names = config.admission
        self._is_absent = False

    @property
    def look_again_s(self) -> float:
        """As `Source.look_again_s`: soon while the configuration is still to come."""
        return 2.0 if self._is_absent else 30.0

    async def read(self) -> tuple[bytes, bytes]:
        """As `Source.read`."""
        try:
            own = await self._shared()
            await self._tell(own.authority)
        except ApiError as error:
            raise CertificateError(str(error)) from error
        return own.certificate, own.key

    async def _shared(self) -> Signed:
        while True:
            secret = await self._secret()
            known = _signed_of(secret) if secret is not None else None
            hosts = tuple(f"{self._names.service}.{self._namespace}{end}" for end in (".svc", ".svc.cluster.local"))
            if known is not None and is_good_for_long(known, hosts):
                return known
            new = signed(hosts, known)
            try:
                await self._store(secret, new)
            except ApiError as error:
                if error.status != 409:
                    raise
                continue  # another replica was quicker; its certificate is as good
            _log.info(
                "certificate signed", extra={"action": "sign", "why": "there was none, or its time is nearly over"}
            )
            return new

    async def _secret(self) -> JsonObject | None:
        try:
            return await self._api.get(SECRET, self._namespace, self._names.secret)
        except ApiError as error:
            if error.not_found:
                return None
            raise

    async def _store(self, secret: JsonObject | None, new: Signed) -> None:
        values = {
            CERTIFICATE: new.certificate,
            KEY: new.key,
            AUTHORITY: new.authority,
            AUTHORITY_KEY: new.authority_key,
        }
        data = {name: base64.b64encode(value).decode() for name, value in values.items()}
        if secret is not None:
            await self._api.replace(SECRET, self._namespace, secret | {"data": (secret.get("data") or {}) | data})
            return
        body: JsonObject = {
            "apiVersion": SECRET.api_version,
            "kind": SECRET.kind,
            "metadata": {"name": self._names.secret, "namespace": self._namespace},
            "data": data,
        }
        await self._api.create(SECRET, self._namespace, body)

    async def _tell(self, authority: bytes) -> None:
        """Brings caBundle in step."""
        bundle = base64.b64encode(authority).decode()
        while (configuration := await self._configuration()) is not None:
            hooks = configuration.get("webhooks") or []
            if all(hook["clientConfig"].get("caBundle") == bundle for hook in hooks):
                return
            for hook in hooks:
                hook["clientConfig"]["caBundle"] = bundle
            try:
                await self._api.replace(WEBHOOK_CONFIGURATION, None, configuration)
            except ApiError as error:
                if not error.conflict:
                    raise
                continue  # somebody else has written it, maybe another replica the same
            _log.info("authority told", extra={"action": "sign", "why": "caBundle was another one"})

    async def _configuration(self) -> JsonObject | None:
        try:
            found = await self._api.get(WEBHOOK_CONFIGURATION, None, self._names.configuration)
        except ApiError as error:
            if not error.not_found:
                raise
            if not self._is_absent:
                why = f"there is no {WEBHOOK_CONFIGURATION.kind} {self._names.configuration}"
                _log.warning("nobody asks the webhook", extra={"action": "sign", "why": why})
            self._is_absent = True
            return None
        self._is_absent = False
        return found


def _signed_of(secret: JsonObject) -> Signed | None:
    data = secret.get("data") or {}
    try:
        values = [base64.b64decode(data[name]) for name in (CERTIFICATE, KEY, AUTHORITY, AUTHORITY_KEY)]
    except (KeyError, ValueError):
        return None
    return Signed(*values)


def load(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Puts a certificate into a context: connections that begin from now on are shown it. Raises CertificateError.

    Tried in a context of its own first, for a failed attempt would leave half of it in the one in use. The files that
    the ssl module insists on are in memory: the root file system may be read-only, and keys belong on no disk.
    """
    for place in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), context):
        files = [os.memfd_create(name) for name in ("certificate", "key")]
        try:
            for file, content in zip(files, (certificate, key), strict=True):
                os.write(file, content)
            place.load_cert_chain(*(f"/proc/self/fd/{file}" for file in files))
        except (ssl.SSLError, ValueError) as error:
            raise CertificateError(f"certificate and key cannot be used: {error}") from error
        finally:
            for file in files:
                os.close(file)
