"""What goes wrong for the user of a local cluster."""


class ClusterError(Exception):
    """The cluster cannot be started, stopped or asked; the message says what to do."""
