"""Which types of received files are taken, and how: one place for whoever takes files in."""

from collections.abc import Callable

from switch.clearing.day_files import Connection
from switch.clearing.depot_files import DEPOT, depot_kind
from switch.clearing.files import FileName
from switch.clearing.foreign import ANSWER, answer_kind
from switch.clearing.received import Kind, Terms
from switch.domain.errors import InputRefused
from switch.purse.intake import DigestAll

TAKEN = frozenset({DEPOT, ANSWER})


def kinds(connection: Connection, terms: Terms, digest_all: DigestAll) -> Callable[[FileName], Kind]:
    """For `received.take_file`. connection: a writer's. digest_all: reads records and checks their TACs."""

    def kind_of(name: FileName) -> Kind:
        if name.kind == DEPOT:
            return depot_kind(connection, name, terms, digest_all)
        if name.kind == ANSWER:
            return answer_kind(connection, terms)
        raise InputRefused(f"{name.kind} files are not taken")

    return kind_of
