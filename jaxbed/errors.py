"""The errors that commands tell in one sentence instead of a traceback."""


class InputError(Exception):
    """Bad input or configuration: the user's to mend; commands exit with 2.

    The message names the file or flag, what was found, what was expected and what to do.
    """


class DivergedError(Exception):
    """Training met a loss that is not finite; commands exit with 1.

    The message names the step and the folder that keeps it.
    """


class StoppedError(Exception):
    """Somebody asked the process to end, and what was done so far is saved; commands exit with 143.

    The message says where it stopped and how to go on.
    """


class LostProcessError(Exception):
    """Of several processes that train together one is missing; commands exit with 1.

    The message says which, where the others waited for it and for how long.
    """


def short(text: object, most: int = 200) -> str:
    """Makes of text, or of what an exception says, what can stand in one line of a message."""
    line = " ".join(str(text)[: 2 * most].split())
    if not line and isinstance(text, Exception):
        line = type(text).__name__
    line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    return line if len(line) <= most else f"{line[:most]}..."
