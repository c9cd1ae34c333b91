"""The one error that is the user's to mend."""


class InputError(Exception):
    """Bad input or configuration.

    The message is one sentence that names the file or flag, what was found, what was
    expected and what to do. Commands print it without a traceback and exit with 2.
    """
