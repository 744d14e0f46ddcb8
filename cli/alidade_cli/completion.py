"""Completion in shells: of commands and options by click, of KIND/NAME by what the cluster has."""

import sys

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from alidade_cli import local_cluster
from alidade_cli.errors import CommandFailed
from alidade_crds.crd import KINDS, Kind

SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_ALIDADE_COMPLETE"


@click.command(short_help="Complete words in a shell.")
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what makes a shell complete alidade's words: eval "$(alidade completion bash)" in ~/.bashrc."""
    found = get_completion_class(shell)
    assert found is not None, "click has all of them"
    root = click.get_current_context().find_root().command
    click.echo(found(root, {}, "alidade", _VARIABLE).source())


def complete_target(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Kinds, and after the slash the names that there are. Silent where the cluster does not answer."""
    del param
    word, slash, _ = incomplete.partition("/")
    if not slash:
        return [CompletionItem(f"{kind.short_name}/", help=kind.kind) for kind in KINDS if _means(kind, word)]
    kind = next((one for one in KINDS if word in (one.short_name, one.singular, one.plural)), None)
    if kind is None:
        return []
    try:
        names = local_cluster.connect(ctx.params.get("namespace")).names(kind)
    except CommandFailed:
        return []
    return [CompletionItem(f"{word}/{name}") for name in names if f"{word}/{name}".startswith(incomplete)]


def _means(kind: Kind, word: str) -> bool:
    return any(name.startswith(word) for name in (kind.short_name, kind.singular, kind.plural))


def for_kubectl() -> None:
    """The console script kubectl_complete-alidade, which kubectl asks about the words after `kubectl alidade`.

    Source: kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins, and cobra's __complete: a proposal a line, its help
    after a tab, then what the shell is to do (4: no file names).
    """
    from alidade_cli.main import alidade

    *before, incomplete = sys.argv[1:] or [""]
    for item in ShellComplete(alidade, {}, "alidade", _VARIABLE).get_completions(before, incomplete):
        click.echo(f"{item.value}\t{item.help}" if item.help else item.value)
    click.echo(":4")
