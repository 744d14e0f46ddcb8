"""Logs of containers, read from the files that the kubelet lets them write."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from alidade_local.objects import Object, name_of, uid_of

_CHUNK_BYTES = 64 * 1024
# Any of the spellings that Go accepts; Python's clients write `True`.
_TRUE = ("true", "1", "True", "TRUE", "t", "T")
_POLL_S = 0.2  # a file tells nobody that it grew; five looks a second feel immediate and cost nothing


class LogError(Exception):
    """There is no such log; the message is the original's."""


@dataclass(frozen=True)
class LogOptions:
    """Parameters of a log request."""

    container: str = ""
    follow: bool = False
    previous: bool = False
    tail_lines: int | None = None
    limit_bytes: int | None = None

    @staticmethod
    def parse(query: Mapping[str, str]) -> LogOptions:
        """The parameters of a query; raises LogError."""
        return LogOptions(
            container=query.get("container", ""),
            follow=query.get("follow", "") in _TRUE,
            previous=query.get("previous", "") in _TRUE,
            tail_lines=_whole(query, "tailLines"),
            limit_bytes=_whole(query, "limitBytes"),
        )


def _whole(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if not text.isdigit():
        raise LogError(f'{name} is "{text}"; it must be a whole number of 0 or more')
    return int(text)


class PodLog:
    """The log of one container of one pod.

    folder: of the pods, by uid. find_pod: the pod of that name as it is now, None when there is none.
    """

    def __init__(
        self, pod: Object, options: LogOptions, *, folder: Path, find_pod: Callable[[], Object | None]
    ) -> None:
        self._pod = pod
        self._options = options
        self._folder = folder
        self._find_pod = find_pod
        self._container = options.container
        self._restart = 0

    def check(self) -> None:
        """Find the container and its file; raises LogError in the words of the original."""
        self._choose_container()
        status = self._status(self._pod)
        restarts = int(status.get("restartCount", 0))
        if self._options.previous:
            if restarts == 0:
                raise LogError(
                    f'previous terminated container "{self._container}" in pod "{name_of(self._pod)}" not found'
                )
            self._restart = restarts - 1
            return
        self._restart = restarts
        if not self._path().exists():
            waiting = (status.get("state") or {}).get("waiting") or {}
            reason = waiting.get("reason") or ("ContainerCreating" if status else "PodInitializing")
            raise LogError(f'container "{self._container}" in pod "{name_of(self._pod)}" is waiting to start: {reason}')

    def _choose_container(self) -> None:
        spec = self._pod["spec"]
        main = [item["name"] for item in spec["containers"]]
        init = [item["name"] for item in spec.get("initContainers") or ()]
        name = name_of(self._pod)
        if not self._container:
            if len(main) + len(init) > 1:
                choices = f"choose one of: [{' '.join(main)}]"
                if init:
                    choices += f" or one of the init containers: [{' '.join(init)}]"
                raise LogError(f"a container name must be specified for pod {name}, {choices}")
            self._container = main[0]
        elif self._container not in (*main, *init):
            raise LogError(f"container {self._container} is not valid for pod {name}")

    def _status(self, pod: Object) -> Object:
        status = pod.get("status") or {}
        every = (*(status.get("containerStatuses") or ()), *(status.get("initContainerStatuses") or ()))
        found: Object = next((item for item in every if item.get("name") == self._container), {})
        return found

    def _path(self) -> Path:
        return self._folder / uid_of(self._pod) / self._container / f"{self._restart}.log"

    def _ended(self) -> bool:
        """Whether nothing will be appended any more."""
        pod = self._find_pod()
        if pod is None or uid_of(pod) != uid_of(self._pod):
            return True
        status = self._status(pod)
        if int(status.get("restartCount", 0)) > self._restart or "terminated" in (status.get("state") or {}):
            return True
        return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The answer to a request for the log, sent as it comes."""
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        async for chunk in self.chunks():
            await response.write(chunk)
        await response.write_eof()
        return response

    async def chunks(self) -> AsyncIterator[bytes]:
        """The bytes asked for, as they come."""
        left = self._options.limit_bytes
        path = self._path()
        if not path.exists():
            return
        with path.open("rb") as file:
            file.seek(_start_of_tail(path, self._options.tail_lines))
            while left is None or left > 0:
                ended = not self._options.follow or self._ended()  # looked up before reading: what came last is read
                chunk = file.read(_CHUNK_BYTES if left is None else min(_CHUNK_BYTES, left))
                if chunk:
                    left = None if left is None else left - len(chunk)
                    yield chunk
                elif ended:
                    return
                else:
                    await asyncio.sleep(_POLL_S)


def _start_of_tail(path: Path, lines: int | None) -> int:
    """Offset at which the last so many lines begin."""
    if lines is None:
        return 0
    size = path.stat().st_size
    if lines == 0:
        return size
    with path.open("rb") as file:
        position, found = size, 0
        while position > 0:
            start = max(0, position - _CHUNK_BYTES)
            file.seek(start)
            block = file.read(position - start)
            at = len(block)
            if position == size and block.endswith(b"\n"):
                at -= 1  # the newline that ends the last line begins no other
            while (at := block.rfind(b"\n", 0, at)) >= 0:
                found += 1
                if found == lines:
                    return start + at + 1
            position = start
    return 0
