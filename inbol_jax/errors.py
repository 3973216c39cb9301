"""The one exception that a user is meant to see."""


class InbolError(Exception):
    """Something that the user can put right: a bad path, option, record or checkpoint.

    The command lines print its message on one line and exit with status 2, so the message must name
    the file, record or option and say what to do.
    """
