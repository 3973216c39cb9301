"""The one exception that a user is meant to see, and how text reaches a terminal."""


class InbolError(Exception):
    """Something that the user can put right: a bad path, option, record or checkpoint.

    The command lines print its message on one line and exit with status 2, so the message must name
    the file, record or option and say what to do.
    """


def printable(text: str) -> str:
    """The text with control characters, and others that a terminal does not show, as escapes.

    Ids, names and answers come from files; a terminal would obey what they hold.
    """
    shown = (
        c if c.isprintable() or c == "\N{NO-BREAK SPACE}" else c.encode("unicode_escape").decode()
        for c in text
    )
    return "".join(shown)
