"""Where an address of a model, of data or of an output lies on this machine; what is remote is fetched first."""

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from alidade_crds.contract import CACHE_ENV, HOSTS_ENV, SCRATCH_ENV, VOLUMES_ENV
from alidade_crds.hosts import HostPolicy
from alidade_crds.reasons import FailureReason
from alidade_crds.uris import WEB, Location, UriError, parse_uri
from alidade_engine.data.records import COMPRESSIONS, SUFFIXES
from alidade_engine.digests import file_digest
from alidade_engine.failures import JobFailure
from alidade_engine.transfer import MANIFEST, IntegrityError, fetch, upload
from alidade_engine.web import ARCHIVES, HostRefusedError, fetch_file, is_archive

# What a model folder needs; pickles are never fetched.
WEIGHTS = "*.safetensors"
MODEL_FILES = [WEIGHTS, "*.json", "*.jinja", "tokenizer.model", "*.tiktoken", "merges.txt", "vocab.txt", "*.py"]
VOCABULARY_FILES = ["tokenizer.json", "*.model"]
DATA_FILES = [
    *(f"*{suffix}" for suffix in SUFFIXES),
    *(f"*{kind}{compression}" for kind in (".json", ".jsonl", ".csv") for compression in COMPRESSIONS),
]
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs"}
_T = TypeVar("_T")


@dataclass(frozen=True)
class Locations:
    """The folders that volumes are mounted under and that scratch files go to.

    volumes: parent of one folder per claim, and of `configmaps/NAME`.
    scratch: a folder that may be lost when the pod ends.
    kept: a folder for what is fetched from elsewhere, which other pods share.
    hosts: the web servers that may be asked.
    """

    volumes: Path
    scratch: Path
    kept: Path | None = None
    hosts: HostPolicy = field(default_factory=HostPolicy)

    @property
    def cache(self) -> Path:
        """Where what was fetched is kept: for all jobs that share the folder, else for this pod."""
        return self.kept or self.scratch / "fetched"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "Locations":
        """The folders that a container is told by ALIDADE_VOLUMES and what goes with it."""
        volumes, scratch = environment.get(VOLUMES_ENV, "/volumes"), environment.get(SCRATCH_ENV, "/scratch")
        kept, hosts = environment.get(CACHE_ENV), environment.get(HOSTS_ENV)
        policy = HostPolicy.from_json(hosts) if hosts else HostPolicy()
        return cls(Path(volumes), Path(scratch), Path(kept) if kept else None, policy)

    def resolve_data(self, uri: str, *, field: str = "dataset.uri") -> Path:
        """The file or folder of records at an address, fetched when it is remote.

        Raises JobFailure: DataNotFound when nothing is there, or it cannot be reached (retryable when a network is at
        fault).
        """
        location = _parse(uri, field)
        if location.scheme == "hf":
            path = self._fetch_hub(
                as_dataset(location),
                field,
                repo_type="dataset",
                patterns=DATA_FILES,
                not_found=FailureReason.DATA_NOT_FOUND,
            )
            _check_digest(location, path, field)
            return path
        path = self._local_or_fetched(location, field, FailureReason.DATA_NOT_FOUND)
        if not path.exists():
            raise JobFailure(FailureReason.DATA_NOT_FOUND, self._absent(location, path, field))
        _check_digest(location, path, field)
        return path

    def resolve_model(self, uri: str, *, field: str = "model.uri", with_weights: bool = True) -> Path:
        """The folder of a model at an address, fetched when it is remote; the loader tells whether it is whole.

        with_weights: whether those of a hub's repository are fetched, too.
        Raises JobFailure: ModelNotFound when nothing is there, or it cannot be reached.
        """
        location = _parse(uri, field)
        if location.scheme == "hf":
            patterns = MODEL_FILES if with_weights else [name for name in MODEL_FILES if name != WEIGHTS]
            return self._fetch_hub(
                location, field, repo_type="model", patterns=patterns, not_found=FailureReason.MODEL_NOT_FOUND
            )
        if location.scheme in WEB and not is_archive(location):
            raise JobFailure(
                FailureReason.CONFIG_INVALID,
                f"{field} is {location.address}; a model of the web is an archive: {', '.join(ARCHIVES)}.",
            )
        path = self._local_or_fetched(location, field, FailureReason.MODEL_NOT_FOUND)
        if not path.exists():
            raise JobFailure(FailureReason.MODEL_NOT_FOUND, self._absent(location, path, field))
        return path

    def resolve_vocabulary(self, uri: str, *, field: str) -> Path:
        """The file or folder of a tokenizer at an address, fetched when it is remote, without the model beside it.

        Raises JobFailure: VocabularyInvalid when nothing is there, or it cannot be reached.
        """
        location = _parse(uri, field)
        absent = FailureReason.VOCABULARY_INVALID
        if location.scheme == "hf":
            return self._fetch_hub(location, field, repo_type="model", patterns=VOCABULARY_FILES, not_found=absent)
        path = self._local_or_fetched(location, field, absent)
        if not path.exists():
            raise JobFailure(absent, self._absent(location, path, field))
        return path

    def as_addresses(self, text: str) -> str:
        """A text in which paths below the volumes are the addresses that a user wrote."""
        return text.replace(f"{self.volumes}/configmaps/", "configmap://").replace(f"{self.volumes}/", "pvc://")

    def resolve_output(self, uri: str, *, field: str = "output.uri") -> Path:
        """The local folder that results are written to, made when absent; `publish` uploads it for s3:// and gs://.

        Raises JobFailure: VolumeReadOnly when it cannot be written, DataNotFound when the claim is not mounted.
        """
        location = _parse(uri, field)
        if location.scheme in ("hf", "configmap", *WEB):
            raise JobFailure(
                FailureReason.CONFIG_INVALID, f"{field} is {uri}; outputs go to pvc://, s3://, gs:// or file://."
            )
        path = (
            self.scratch / "output" / location.root / location.path if is_remote(uri) else self._local(location, field)
        )
        if location.scheme == "pvc" and not (self.volumes / location.root).is_dir():
            raise JobFailure(FailureReason.DATA_NOT_FOUND, self._absent(location, path, field))
        try:
            path.mkdir(parents=True, exist_ok=True)
            probe = path / ".alidade-write"
            probe.touch()
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise JobFailure(
                FailureReason.VOLUME_READ_ONLY,
                f"{field} is {uri}, where nothing can be written ({error.strerror}); use a volume that the pod may "
                "write.",
            ) from error
        return path

    def uploaded_output(self, uri: str, *, field: str = "output.uri") -> Path | None:
        """A copy of what an earlier attempt has uploaded whole to an s3:// or gs:// address; None without that."""
        if not is_remote(uri):
            return None
        location = _parse(uri, field)
        filesystem, remote = _filesystem(location, field), f"{location.root}/{location.path}"
        if not _reach(lambda: filesystem.exists(f"{remote}/{MANIFEST}"), uri, field):
            return None
        return _reach(lambda: fetch(filesystem, remote, self.cache / location.scheme), uri, field)

    def publish(self, local: Path, uri: str, *, field: str = "output.uri") -> None:
        """Uploads a folder to an s3:// or gs:// address; does nothing where `resolve_output` writes in place."""
        if not is_remote(uri):
            return
        location = _parse(uri, field)
        filesystem = _filesystem(location, field)
        _reach(lambda: upload(local, filesystem, f"{location.root}/{location.path}"), uri, field)

    def _local(self, location: Location, field: str) -> Path:
        if location.scheme == "file":
            return Path(location.path)
        volume = self.volumes / ("configmaps" if location.scheme == "configmap" else "") / location.root
        path = volume / location.path
        link = _link_out(path, volume)
        if link is not None:
            raise JobFailure(
                FailureReason.CONFIG_INVALID,
                f"{field} is {location}, where {link.relative_to(volume)} is a link that leads out of its volume. Put "
                "the file itself there.",
            )
        return path

    def _local_or_fetched(self, location: Location, field: str, absent: FailureReason) -> Path:
        if location.scheme in WEB:
            return self._fetch_web(location, field, absent)
        if location.scheme not in _PACKAGES:
            return self._local(location, field)
        filesystem = _filesystem(location, field)
        remote = f"{location.root}/{location.path}"
        return _reach(lambda: fetch(filesystem, remote, self.cache / location.scheme), str(location), field, absent)

    def _fetch_web(self, location: Location, field: str, absent: FailureReason) -> Path:
        address, cache = location.address, self.cache / "web"
        try:
            return _reach(lambda: _fetched_file(location, cache, self.hosts, field), address, field, absent)
        except HostRefusedError as error:
            raise JobFailure(
                FailureReason.CONFIG_INVALID,
                f"{field} is {address}; {error}. Name a file at a public host, or have the host added to allowedHosts "
                "of the operator's configuration.",
            ) from error

    def _fetch_hub(
        self, location: Location, field: str, *, repo_type: str, patterns: list[str], not_found: FailureReason
    ) -> Path:
        if location.path:
            patterns = [location.path, *(f"{location.path}/{pattern}" for pattern in patterns)]
        try:
            folder = snapshot_download(
                location.root, repo_type=repo_type, revision=location.revision, allow_patterns=patterns
            )
        except Exception as error:  # the hub's client raises many kinds; each becomes a sentence
            _refuse_full_disk(error, str(location), field)
            message, retryable = _hub_sentence(error, location, field)
            raise JobFailure(not_found, message, retryable) from error
        path = Path(folder) / location.path
        if not path.exists():
            raise JobFailure(not_found, f"{field} is {location}; the repository has no {location.path}.")
        return path

    def _absent(self, location: Location, path: Path, field: str) -> str:
        if location.scheme == "pvc" and not (self.volumes / location.root).is_dir():
            return f"{field} is {location}; the claim {location.root} is not mounted in this pod."
        if location.scheme == "configmap":
            return f"{field} is {location}; the ConfigMap {location.root} has no key {location.path}."
        parent = next(folder for folder in path.parents if folder.is_dir())
        there = ", ".join(sorted(item.name for item in parent.iterdir())[:8]) or "nothing"
        place = f" of claim {location.root}" if location.scheme == "pvc" else ""
        within = parent.relative_to(self.volumes / location.root) if location.scheme == "pvc" else parent
        return f"{field} is {location}, which does not exist; folder {within or '.'}{place} holds {there}."


def _link_out(path: Path, volume: Path) -> Path | None:
    """The first link at or below a path that leads out of the volume; None without any.

    Who writes to a volume could else have this pod's files, such as the keys mounted into it, read as if they were
    data. A link that is made after this look is not caught.
    """
    within = volume.resolve()
    walk = os.walk(path)  # which follows no link
    below = (Path(folder) / name for folder, folders, files in walk for name in (*folders, *files))
    looked_at = (path, *(one for one in below if one.is_symlink()))
    return next((one for one in looked_at if not one.resolve().is_relative_to(within)), None)


def is_remote(uri: str) -> bool:
    """Whether an address is fetched from, or uploaded to, another machine's storage."""
    return uri.startswith(("s3://", "gs://"))


def _parse(uri: str, field: str) -> Location:
    try:
        return parse_uri(uri)
    except UriError as error:
        raise JobFailure(FailureReason.CONFIG_INVALID, f"{field}: {error}.") from error


def _fetched_file(location: Location, cache: Path, hosts: HostPolicy, field: str) -> Path:
    try:
        return fetch_file(location, cache, hosts)
    except IntegrityError as error:
        raise JobFailure(
            FailureReason.DIGEST_MISMATCH,
            f"{field} is {location.address}; {error}. Name a file that does not change, with its own sha256.",
        ) from error


def _check_digest(location: Location, path: Path, field: str) -> None:
    """Compares a file with the digest that its address carries; one of the web has been compared as it came."""
    if location.sha256 is None or location.scheme in WEB:
        return
    if path.is_dir():
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"{field} is {location.address}, a folder, and a sha256 is set. Name one file, or leave sha256 out.",
        )
    found = file_digest(path)
    if found != location.sha256:
        raise JobFailure(
            FailureReason.DIGEST_MISMATCH,
            f"{field} is {location.address}; the file there has sha256 {found}, and {location.sha256} is expected. It "
            "has changed, or another one is meant.",
        )


def as_dataset(location: Location) -> Location:
    """hf://datasets/ORG/NAME[@REVISION][/FILE] as well as hf://ORG/NAME names a dataset repository."""
    if not location.root.startswith("datasets/"):
        return location
    organisation = location.root.removeprefix("datasets/")
    name, _, path = location.path.partition("/")
    name, _, revision = name.partition("@")
    return Location("hf", f"{organisation}/{name}", path, revision or location.revision, location.sha256)


def _hub_sentence(error: Exception, location: Location, field: str) -> tuple[str, bool]:
    """What went wrong with a repository, and whether trying again later may help."""
    start = f"{field} is {location};"
    if isinstance(error, GatedRepoError):
        return f"{start} access is gated: accept its terms, and give HF_TOKEN of an account that has access.", False
    if isinstance(error, RevisionNotFoundError):
        return f"{start} the repository has no revision {location.revision}.", False
    if isinstance(error, RepositoryNotFoundError):
        return f"{start} there is no such repository, or it is private and HF_TOKEN is absent or of no use.", False
    # A failed request is wrapped when the cache has no copy either.
    answer = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
    if isinstance(answer, HfHubHTTPError):
        status = answer.response.status_code
        return f"{start} the hub answered: {str(answer).splitlines()[0]}", status >= 500 or status == 429
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled | ConnectionError):
        return (
            f"{start} the Hugging Face hub cannot be reached from this pod, and the repository is not in its cache. "
            "Put the files on a volume and name them as pvc://CLAIM/PATH.",
            not isinstance(error, OfflineModeIsEnabled),
        )
    return f"{start} it could not be fetched: {type(error).__name__}: {error}", False


def _filesystem(location: Location, field: str) -> Any:
    protocol = "s3" if location.scheme == "s3" else "gs"
    try:
        return fsspec.filesystem(protocol)
    except ImportError as error:
        raise JobFailure(
            FailureReason.CONFIG_INVALID,
            f"{field} is {location}; {location.scheme}:// needs the package {_PACKAGES[location.scheme]}, which this "
            "image lacks. Use an image that has it, or put the files on a volume and name them as pvc://CLAIM/PATH.",
        ) from error


def _reach(action: Callable[[], _T], uri: str, field: str, absent: FailureReason = FailureReason.DATA_NOT_FOUND) -> _T:
    try:
        return action()
    except FileNotFoundError as error:
        raise JobFailure(absent, f"{field} is {uri}, which does not exist.") from error
    except PermissionError as error:
        raise JobFailure(
            absent, f"{field} is {uri}; access was refused. Check the credentials given to the pod."
        ) from error
    except IntegrityError as error:
        raise JobFailure(
            FailureReason.DIGEST_MISMATCH,
            f"{field} is {uri}; {error}. Wait until its upload has ended, or have it made again.",
            retryable=True,
        ) from error
    except OSError as error:
        _refuse_full_disk(error, uri, field)
        raise JobFailure(absent, f"{field} is {uri}; it cannot be reached: {error}", retryable=True) from error


def _refuse_full_disk(error: Exception, uri: str, field: str) -> None:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise JobFailure(
            FailureReason.DISK_FULL,
            f"{field} is {uri}; the scratch volume filled up while it was fetched. Give the pods more ephemeral "
            "storage, or put the files on a volume and name them as pvc://CLAIM/PATH.",
        ) from error
