"""Who stands still: every process says how far it is, and the lead tells who does not move."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from jaxbed import hosts
from jaxbed.roll_call import names
from jaxbed.training.clock import Clock

_TOPIC = "pulse"


class Pulse:
    """What this process says of itself.

    Attributes:
        moves: things begun since the process began: steps, batches looked at, states kept. All
            processes begin the same ones in the same order, so who has begun fewer is waited for.
        at: the stretch of training and its step, for people.
    """

    def __init__(self, clock: Clock):
        self.moves = 0
        self.at = "the start"
        self._clock = clock

    def move(self, at: str | None = None) -> None:
        """Says that the next thing begins."""
        self.moves += 1
        self.at = at or self.at

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Tells the others in the background, and lets the lead look at all, inside the block.

        Does nothing in a process that is alone.
        """
        if hosts.count() == 1:
            yield
            return
        stall_s = hosts.patience.stall_s
        done = threading.Event()
        watch = Watch(stall_s)

        def beat() -> None:
            while not done.wait(min(5.0, stall_s / 10)):
                doing = self._clock.doing or "preparation"
                hosts.tell(_TOPIC, {"moves": self.moves, "at": self.at, "doing": doing})
                if hosts.is_lead():
                    warning = watch.look(hosts.told(_TOPIC), time.monotonic())
                    if warning:
                        print(f"warning: {warning}", file=sys.stderr, flush=True)

        def beat_until_the_service_ends() -> None:
            with contextlib.suppress(RuntimeError):  # what JAX raises then
                beat()

        thread = threading.Thread(target=beat_until_the_service_ends, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


class Watch:
    """Remembers since when every process stands where it is."""

    def __init__(self, stall_s: float):
        self._stall_s = stall_s
        self._since: dict[int, tuple[int, float]] = {}
        self._told: Any = None

    def look(self, told: dict[int, dict[str, Any]], now_s: float) -> str:
        """Says, once per standstill, who all wait for.

        Args:
            told: what every process said last, by its number: moves, at, doing, host.
            now_s: this process's clock; theirs may differ, so nobody is asked for the time.

        Returns:
            A sentence, or nothing.
        """
        for number, said in told.items():
            if self._since.get(number, (-1, 0))[0] != said["moves"]:
                self._since[number] = (said["moves"], now_s)
        least = min((said["moves"] for said in told.values()), default=0)
        behind = [number for number, said in told.items() if said["moves"] == least]
        stood_s = min((now_s - self._since[number][1] for number in behind), default=0.0)
        if stood_s < self._stall_s or self._told == (least, behind):
            return ""
        self._told = (least, behind)
        where = "; ".join(
            f"{number} on {told[number]['host']} is at {told[number]['at']}, "
            f"busy with {told[number]['doing']}"
            for number in behind
        )
        others = len(told) - len(behind)
        wait = f", and {others} wait for it" if others else ""
        return f"{names(behind)} made no step for {stood_s:.0f} s{wait} ({where})"
