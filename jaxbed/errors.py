"""The errors that commands tell in one sentence instead of a traceback."""


class InputError(Exception):
    """Bad input or configuration: the user's to mend; commands exit with 2.

    The message names the file or flag, what was found, what was expected and what to do.
    """


class DivergedError(Exception):
    """Training met a loss that is not finite; commands exit with 1.

    The message names the step and the file that keeps the step's batch.
    """


class StoppedError(Exception):
    """Somebody asked the process to end, and what was done so far is saved; commands exit with 143.

    The message says where it stopped and how to go on.
    """
