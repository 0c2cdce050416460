"""How a host behaves, request by request: a script in order, then a habit.

As text: `normal*100,slow:0.5,silent*3,dies:2`: names, seconds where a behaviour takes some, and how many requests it meets.
"""

import re
from collections import deque
from enum import Enum
from typing import NamedTuple

STEPS_MAX = 1_000_000
_STEP = re.compile(r"([a-z-]+)(?::(\d+(?:\.\d+)?))?(?:\*(\d+))?")


class Behaviour(Enum):
    """What a host does with a request."""

    NORMAL = "normal"
    SLOW = "slow"  # books, and answers after so many seconds; more than the time-out makes it late
    SILENT = "silent"  # books, and never answers
    DEAF = "deaf"  # neither books nor answers
    WRONG_MAC = "wrong-mac"
    DUPLICATE = "duplicate"  # answers twice
    HALF_OPEN = "half-open"  # from now on this connection swallows everything and stays
    OTHER_AMOUNT = "other-amount"  # answers about one yuan more than it was asked for
    GARBLED = "garbled"  # an answer whose last field cannot be read
    DIES = "dies"  # books, and is gone before it answers, for so many seconds
    OLD_SEQUENCE = "old-sequence"  # sends its oldest answer again before it answers
    REFUSES = "refuses"  # answers 91
    WAVERS = "wavers"  # answers 51, books after all, and says so after so many seconds


class Step(NamedTuple):
    """A behaviour and its seconds."""

    behaviour: Behaviour
    seconds: float = 0.0


NORMAL = Step(Behaviour.NORMAL)


class Script:
    """Steps for the next requests, then `habit` for all others. Both may be changed while it runs."""

    def __init__(self, *steps: Step, habit: Step = NORMAL) -> None:
        self.steps = deque(steps)
        self.habit = habit

    def next(self) -> Step:
        """What to do with the request that has come."""
        return self.steps.popleft() if self.steps else self.habit


def read_script(text: str) -> Script:
    """A script from its text; ValueError names the part that is none."""
    steps: list[Step] = []
    for part in filter(None, text.replace(" ", "").split(",")):
        found = _STEP.fullmatch(part)
        names = [behaviour.value for behaviour in Behaviour]
        if found is None or found[1] not in names:
            raise ValueError(f"{part}: a step is one of {', '.join(names)}, then :SECONDS and *TIMES")
        times = int(found[3] or 1)
        if len(steps) + times > STEPS_MAX:
            raise ValueError("the script is too long")
        steps += [Step(Behaviour(found[1]), float(found[2] or 0))] * times
    return Script(*steps)
