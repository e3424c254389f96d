"""Errors meant for people."""


class UserError(Exception):
    """What went wrong and what to do next stands in the message; where in the code it was noticed helps nobody."""


def told(error: Exception) -> str:
    """What an error says: a message meant for people alone, else behind the name of its kind."""
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
