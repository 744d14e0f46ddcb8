"""Errors that end a command with a sentence instead of a trace."""

import click


class CommandFailed(click.ClickException):
    """The command could not do what was asked; exit code 1, the message says what to do."""

    exit_code = 1
