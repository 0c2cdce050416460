"""What is told to all terminals at once, whoever carries it."""

from typing import Protocol


class Publisher(Protocol):
    """A way to everybody who listens to a topic."""

    async def publish(self, topic: str, payload: bytes, *, retain: bool) -> None:
        """Return when the broker has it, at least once. retain: whoever comes later gets it too; an empty payload ends that.

        DependencyError when it could not be handed over: nothing is known then, and it may be published again.
        """
