"""Why something could not be published."""


class Refusal(Exception):  # noqa: N818  # it is what a server says
    """The message is a clause for the sentence that `publish_model` makes. retryable: if trying again may do."""

    def __init__(self, why: str, *, retryable: bool = False) -> None:
        super().__init__(why)
        self.retryable = retryable
