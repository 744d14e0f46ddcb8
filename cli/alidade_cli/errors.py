"""Errors that end a command with a sentence instead of a trace, and what the exit codes mean."""

import click

FAILED = 1
"""What was asked for did not come about; stderr says why, and what to do."""
USAGE = 2
"""The command line is wrong."""
INTERRUPTED = 130
"""Ended by ctrl-c: 128 and the number of SIGINT, as shells have it."""


class CommandFailed(click.ClickException):
    """The command could not do what was asked; the message says what to do."""

    exit_code = FAILED


class ClusterSilent(CommandFailed):
    """The API server does not answer; it may a moment later."""
