"""One error for everything an operator can put right: its text is one sentence that names the remedy."""


class CannotRun(Exception):
    """The machine, the folder or an argument forbids going on. The message says what to do instead."""
