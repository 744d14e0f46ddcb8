"""A finished model as one commit of a repository of the Hugging Face hub."""

from pathlib import Path

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, ModelCard
from huggingface_hub.errors import HfHubHTTPError

from alidade_crds.publishing import HubCommit, HubPush
from alidade_trainer.publishing.refusal import Refusal

_CARD = "README.md"
_LONGEST = 600
"""Characters of a server's answer that are told."""


def push(folder: Path, to: HubPush, *, message: str, token: str | None) -> HubCommit:
    """Commits the model, its card and nothing else; a repository that has all of it already gets no commit.

    folder: as `export_model` writes it. token: one that may write; None takes the environment's. Weights of an earlier
    model, which loaders would mix with these, go in the same commit. Raises Refusal.
    """
    api = HfApi(token=token)
    try:
        api.create_repo(to.repository, private=to.private, exist_ok=True)
        there = api.list_repo_files(to.repository)
        commit = api.create_commit(to.repository, _operations(folder, to, there), commit_message=message)
    except HfHubHTTPError as error:
        raise _refusal(error, to) from error
    except (httpx2.TransportError, OSError, RuntimeError, ValueError) as error:
        # The last two are what the client makes of an upload that the storage behind the hub did not take.
        raise Refusal(f"the hub cannot be reached: {type(error).__name__}: {error}", retryable=True) from error
    return HubCommit(repository=to.repository, revision=commit.oid, url=commit.commit_url)


def _operations(folder: Path, to: HubPush, there: list[str]) -> list[CommitOperationAdd | CommitOperationDelete]:
    files = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    added = [CommitOperationAdd(name, _card(path, to) if name == _CARD else str(path)) for name, path in files.items()]
    stale = [name for name in there if name not in files and _is_weights(name)]
    return [*added, *(CommitOperationDelete(name) for name in stale)]


def _card(path: Path, to: HubPush) -> bytes:
    card = ModelCard.load(path)
    if to.license is not None:
        card.data.license = to.license
    return str(card).encode()


def _is_weights(name: str) -> bool:
    return "/" not in name and name.endswith((".safetensors", ".safetensors.index.json"))


def _refusal(error: HfHubHTTPError, to: HubPush) -> Refusal:
    code = error.response.status_code
    if code in (401, 403):
        return Refusal(
            f"the hub answered {code}: the token may not write to {to.repository}. Name a Secret whose key HF_TOKEN "
            "may, by publish.hub.secretName"
        )
    said = " ".join(str(error).split())[:_LONGEST].rstrip(".")
    return Refusal(f"the hub answered {said}", retryable=code >= 500 or code in (408, 409, 429))
