"""Adapters of a ModelServe that come and go while its replicas run."""

from collections.abc import Sequence
from dataclasses import replace

from alidade_operator.api import CONFIG_MAP
from alidade_operator.reconcile.plan import AdapterTarget, Apply
from alidade_operator.reconcile.servedraft import ServeDraft, Situation, owned
from alidade_operator.resources.adapterlist import adapter_list, made_anew, wanted_adapters
from alidade_operator.resources.engines.server import Server, loads_while_running
from alidade_operator.resources.observation import PodView
from alidade_operator.resources.serving import applied_hash


def with_list(situation: Situation, server: Server) -> Server:
    """The server with what changes when an adapter was made anew at its place."""
    if not loads_while_running(server):
        return server
    return replace(server, made_anew=made_anew(server, situation.seen.adapter_list))


def keep_adapters(situation: Situation, draft: ServeDraft, server: Server, *, is_told: bool) -> None:
    """Brings the list that new replicas read to what the spec asks, and then those that run.

    While replicas are replaced only new ones are to have the list, which they read themselves: the adapters may be of
    another model.
    """
    if not loads_while_running(server):
        return
    view, body = situation.seen.adapter_list, adapter_list(server, situation.seen.adapter_list)
    if view is None or view.applied != applied_hash(body):
        draft.children.append(Apply(CONFIG_MAP, body))
    own, wanted = owned(situation.seen.deployment), wanted_adapters(server)
    if own is not None and is_told and own.is_rolled_out:
        draft.loading = tuple(
            AdapterTarget(pod.uid, pod.ip, adapters=wanted) for pod in _running(situation.seen.pods) if pod.ip
        )


def served_adapters(situation: Situation, server: Server) -> list[str]:
    """Names of the adapters that every replica has, in the spec's order."""
    wanted = wanted_adapters(server)
    if not loads_while_running(server):
        return [name for name, _ in wanted]
    loaded = [situation.seen.loaded.get(pod.uid) for pod in _running(situation.seen.pods)]
    return [
        name
        for name, folder in wanted
        if loaded and all(one is not None and one.folders.get(name) == folder for one in loaded)
    ]


def is_loaded(situation: Situation, server: Server) -> bool:
    """Whether every replica has all adapters, and no other."""
    if not loads_while_running(server):
        return True
    wanted = dict(wanted_adapters(server))
    pods, loaded = _running(situation.seen.pods), situation.seen.loaded
    return all(pod.uid in loaded and loaded[pod.uid].folders == wanted for pod in pods)


def refusal_words(situation: Situation) -> str:
    """What a replica says that would not take an adapter; empty when none says anything."""
    for pod in _running(situation.seen.pods):
        loaded = situation.seen.loaded.get(pod.uid)
        if loaded is not None and loaded.refused:
            return f" Pod {pod.name} refuses {loaded.refused.rstrip('.')}."
    return ""


def _running(pods: Sequence[PodView]) -> list[PodView]:
    return [pod for pod in pods if pod.ready_to_report and not pod.ended and pod.deletion_deadline is None]
