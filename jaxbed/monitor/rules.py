"""Which dangers raise an alert, from which scores on, and how soon."""

import dataclasses
import math

from jaxbed.errors import InputError

PRIORITIES = ("high", "medium", "low")
STALE = "stale"
"""The kind of event that tells that the monitor is blind."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """When scores of one danger raise an event and when they end it.

    Attributes:
        kind: the danger, a key of `Observation.scores`.
        priority: one of PRIORITIES.
        explanation: what the danger is, in words for the person who is woken up.
        enter: scores from here on speak for the danger, within (0, 1].
        exit: scores up to here speak against it, below `enter`.
        needed: frames that must speak for it, at least 2.
        of: how many of the last judged frames these may be among, at least `needed`.
        delay_s: how long the danger must have lasted before the event is raised.
        clear_s: how long it must have been over before the event ends.
        cooldown_s: the next event of this kind is raised no sooner after one has ended. A danger
            that lasts so long is raised then.
        lost_s: an event ends when its danger could not be judged for so long; None for never.
    """

    kind: str
    priority: str
    explanation: str
    enter: float = 0.7
    exit: float = 0.4
    needed: int = 4
    of: int = 6
    delay_s: float = 3.0
    clear_s: float = 2.0
    cooldown_s: float = 10.0
    lost_s: float | None = None

    def check(self) -> None:
        """Refuses what cannot be. Raises InputError."""
        name = f"the alert rule of {self.kind!r}"
        if not self.kind or self.kind == STALE:
            raise InputError(f"{name} needs another name: empty and {STALE!r} are not free.")
        if self.priority not in PRIORITIES:
            raise InputError(f"{name} has priority {self.priority!r}; choose one of {PRIORITIES}.")
        if not 0 <= self.exit < self.enter <= 1:
            raise InputError(
                f"{name} enters at {self.enter} and exits at {self.exit}; both are probabilities, "
                "and exit must be the lower one."
            )
        if not 2 <= self.needed <= self.of:
            raise InputError(
                f"{name} needs {self.needed} of {self.of} frames, but must need 2 at least, and "
                "no more than there are; a single frame never alerts."
            )
        for field in ("delay_s", "clear_s", "cooldown_s", "lost_s"):
            seconds = getattr(self, field)
            if seconds is not None and not 0 <= seconds < math.inf:
                raise InputError(f"{name} has {field} {seconds}; give seconds of 0 or more.")


DANGERS = (
    Rule("occluded", "high", "something other than a pacifier covers the face"),
    Rule("stomach", "high", "the infant lies on the stomach"),
    Rule("standing", "medium", "the infant stands and may fall", delay_s=1.5),
)
"""The dangers of the thesis. Their thresholds are ours: it states none."""
