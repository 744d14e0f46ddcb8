"""`alidade chat` with a served model: at the terminal, line by line from a pipe, or one question after the other."""

import sys
from contextlib import closing

import click

from alidade_cli.asking import Asking, Conversation, NotAnsweredError, model_of
from alidade_cli.doors import Door
from alidade_cli.errors import INTERRUPTED
from alidade_crds.printing import printable


def chat(
    door: Door, *, prompts: tuple[str, ...], system: str, temperature: float, max_new_tokens: int | None, history: int
) -> int:
    """Answers every prompt by itself, or talks until the input ends; the exit code. CommandFailed without an answer."""
    asking = Asking(model_of(door), temperature, max_new_tokens)

    def begin() -> Conversation:
        return Conversation(door, asking, system, history)

    if not prompts and sys.stdin.isatty() and sys.stdout.isatty():
        _talk(door, begin())
        return 0
    try:
        if prompts:
            for prompt in prompts:
                _answer(begin(), prompt)
        else:
            conversation = begin()
            for line in sys.stdin:
                if line.strip():
                    _answer(conversation, line.rstrip("\r\n"))
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _talk(door: Door, conversation: Conversation) -> None:
    """Asks and answers until ctrl-d. Ctrl-c ends an answer, or empties the line."""
    _edit_lines()
    _note(f"{door.label}, model {conversation.asking.model}. Ctrl-c stops an answer, ctrl-d ends.")
    while (line := _read_line()) is not None:
        if not line.strip():
            continue
        try:
            _answer(conversation, line)
        except KeyboardInterrupt:
            click.echo()
        except NotAnsweredError as error:
            click.echo(f"Error: {printable(error.message)}", err=True)


def _edit_lines() -> None:
    """Arrow keys and earlier lines, where Python has readline."""
    try:
        import readline
    except ImportError:
        return
    readline.set_auto_history(True)


def _read_line() -> str | None:
    """The next line; None at the end of the input."""
    while True:
        try:
            return input("> ")
        except EOFError:
            click.echo()
            return None
        except KeyboardInterrupt:
            click.echo()


def _answer(conversation: Conversation, question: str) -> None:
    """Prints an answer as it comes."""
    # Closed also when ctrl-c comes between two parts: that ends the request, and keeps what was said.
    has_begun = False
    try:
        with closing(conversation.answer(question)) as parts:
            for part in parts:
                has_begun = True
                # Not click's echo, which takes colours out: a file or a pipe gets what the model has written.
                print(printable(part) if sys.stdout.isatty() else part, end="", flush=True)
    except NotAnsweredError:
        if has_begun:
            click.echo()
        raise
    click.echo()
    if conversation.forgotten:
        _note(f"Exchanges that no longer fit and were forgotten: {conversation.forgotten}")
    if conversation.is_cut_off:
        limit = conversation.asking.max_new_tokens
        _note(
            "Cut off where the server ends."
            if limit is None
            else f"Cut off at {limit} tokens; --max-new-tokens takes more."
        )


def _note(text: str) -> None:
    """A dim line beside the answers, for people only."""
    if sys.stderr.isatty():
        click.secho(text, dim=True, err=True)
