"""Errors meant for people."""


class UserError(Exception):
    """What went wrong and what to do next stands in the message; where in the code it was noticed helps nobody."""
