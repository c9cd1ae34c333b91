"""What parts of the monitor have to say to a person: once each, from any thread."""

import threading


class Remarks:
    """Sentences that wait to be shown, and which were said before.

    A trouble that comes back all night is told the first time; the counts at the end tell how
    often it came.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._said: set[str] = set()
        self._waiting: list[str] = []

    def say(self, key: str, sentence: str) -> None:
        """Keeps a sentence unless one with this key was said.

        Args:
            key: names the trouble; there are a few of them, whatever the details.
            sentence: what to show.
        """
        with self._lock:
            if key not in self._said:
                self._said.add(key)
                self._waiting.append(sentence)

    def take(self) -> list[str]:
        """Returns what was not taken before."""
        with self._lock:
            taken, self._waiting = self._waiting, []
        return taken
