"""Things to show on the monitor's page."""

import math

import numpy as np

from jaxbed.monitor.alerts import Event
from jaxbed.monitor.observation import Observation

NAN = math.nan
PICTURE = b"\xff\xd8 a picture \xff\xd9"


def event(id, kind="stomach", *, onset_s=0.0, end_s=None, raised_s=None, evidence=None):
    rule = "the infant lies on the stomach: 4 of 6 frames"
    evidence = ((0.0, 0.1), (1.0, NAN), (2.0, 0.97)) if evidence is None else evidence
    raised_s = onset_s + 2.0 if raised_s is None else raised_s
    return Event(id, kind, "high", onset_s, end_s, raised_s, rule, evidence)


def scores(occluded=0.02, stomach=0.03, standing=0.01):
    told = {"occluded": occluded, "stomach": stomach, "standing": standing}
    return Observation(told, np.zeros((1, 5), np.float32), {"back": 0.9}, {"clear": 0.9})


def show(status, state="OK", observation="safe", picture=PICTURE, latency_ms=40.0):
    observation = scores() if isinstance(observation, str) else observation
    status.show(
        state=state,
        observation=observation,
        latency_ms=latency_ms,
        fps=10.0,
        dropped=3,
        picture=picture,
    )


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self):
        self.at = 1000.0

    def __call__(self):
        return self.at
