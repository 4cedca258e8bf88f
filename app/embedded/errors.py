"""What goes wrong with the embedded servers, in one line that says what to do."""


class EmbeddedError(RuntimeError):
    """An embedded server cannot run; the message says why and what to do."""
