"""Which types of received files are taken, and how: one place for whoever takes files in."""

from collections.abc import Callable

from switch.clearing.centre import FORWARD, CentreTerms, centre_answer_kind, forward_kind
from switch.clearing.day_files import Connection
from switch.clearing.depot_files import DEPOT, depot_kind
from switch.clearing.disputes.incoming import DISPUTES, dispute_kind
from switch.clearing.files import FileName
from switch.clearing.foreign import ANSWER, answer_kind
from switch.clearing.own_cards import FORWARDED, own_cards_kind
from switch.clearing.received import Kind, Terms
from switch.domain.errors import InputRefused
from switch.purse.intake import DigestAll

TAKEN = frozenset({DEPOT, FORWARD, FORWARDED, ANSWER, DISPUTES})


def kinds(
    connection: Connection, terms: Terms, digest_all: DigestAll, centre: CentreTerms | None = None
) -> Callable[[FileName], Kind]:
    """For `received.take_file`. connection: a writer's. digest_all: reads records and checks their TACs. centre: if this is one."""

    def kind_of(name: FileName) -> Kind:
        if name.kind == DEPOT:
            return depot_kind(connection, name, terms, digest_all)
        if name.kind == FORWARD:
            if centre is None:
                raise InputRefused("this installation is no interop centre: interop.serve is not set")
            return forward_kind(connection, name, centre)
        if name.kind == FORWARDED:
            return own_cards_kind(connection, terms, digest_all)
        if name.kind == ANSWER and centre is not None and name.receiver == terms.interop_centre:
            return centre_answer_kind(connection, name, centre)
        if name.kind == DISPUTES:
            return dispute_kind(connection, name, terms)
        if name.kind == ANSWER:
            return answer_kind(connection, terms)
        raise InputRefused(f"{name.kind} files are not taken")

    return kind_of
