"""Suite `clearing`: each operation runs the code that closes a day (operations.clearing_vectors)."""

from collections.abc import Callable

from switch.operations.clearing_vectors import OPERATIONS, Json
from switch.operations.known_answers.vector import Checker, Outs, Vector


def _checker(operation: Callable[[Json, Json], Json]) -> Checker:
    def check(vector: Vector) -> Outs:
        return operation(vector.given, vector.document)

    return check


CHECKERS: dict[tuple[str, str], Checker] = {("clearing", op): _checker(run) for op, run in OPERATIONS.items()}
