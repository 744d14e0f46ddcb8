"""The page of the commands in docs/reference, from the commands themselves."""

from collections.abc import Iterator, Sequence

import click

_INTRODUCTION = """# Command line

Generated from `cli/alidade_cli`; `--help` of each command says the same. Beside kubectl, `kubectl alidade` is the same
command, and `alidade completion` makes shells complete it.

"""


def command_reference(root: click.Command, name: str) -> str:
    """The page, in Markdown: every command with its usage, words and options."""
    return _INTRODUCTION + "\n".join(_command(root, (name,))).rstrip() + "\n"


def commands(root: click.Command, path: Sequence[str]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command below and at one, with the words that call it."""
    yield tuple(path), root
    if isinstance(root, click.Group):
        for name, command in sorted(root.commands.items()):
            yield from commands(command, (*path, name))


def _command(root: click.Command, path: tuple[str, ...]) -> Iterator[str]:
    for words, command in commands(root, path):
        context = _context(words, command)
        yield f"## {' '.join(words)}\n"
        yield f"```text\n{' '.join((*words, *command.collect_usage_pieces(context)))}\n```\n"
        for paragraph in (command.help or "").split("\n\n"):
            yield " ".join(paragraph.split()) + "\n"
        if isinstance(command, click.Group):
            yield from (
                f"- `{' '.join(words)} {name}`: {one.short_help}" for name, one in sorted(command.commands.items())
            )
            yield ""
        rows = list(_rows(command, context))
        if rows:
            yield "| option | what |\n|---|---|"
            yield from rows
            yield ""


def _context(words: tuple[str, ...], command: click.Command) -> click.Context:
    context: click.Context | None = None
    for word in words:
        context = click.Context(command, info_name=word, parent=context)
    assert context is not None, "a command has a name"
    return context


def _rows(command: click.Command, context: click.Context) -> Iterator[str]:
    """An option with its values, and what it does with default and bounds, as --help has them."""
    for option in command.params:
        record = option.get_help_record(context) if isinstance(option, click.Option) else None
        if record is not None:
            names, words = (text.replace("|", "\\|") for text in record)
            yield f"| `{names}` | {words} |"
