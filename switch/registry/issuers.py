"""Whose cards are whose, and how far issuers and acquirers have agreed to serve each other: what routing must know."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple

import psycopg

from switch.domain.circles import Circle
from switch.storage.sql import load

_SQL: Final = load("switch.registry", "issuers.sql")

READ_ISSUERS: Final = _SQL["issuers"]
READ_SCOPES: Final = _SQL["scopes"]


class Issuer(NamedTuple):
    """An issuer of cards, ours or another city's."""

    issuer_id: str  # 16 hexadecimal digits
    institution_id: str
    own: bool
    circle: Circle  # where it lies
    scope: Circle  # how far its cards may be used
    bins: tuple[str, ...]  # leading digits of its card numbers
    given: bool  # the digits were given, not derived


class Participants(NamedTuple):
    """Issuers, and by institution how far away the cards may come from that it takes as an acquirer."""

    issuers: tuple[Issuer, ...]
    scopes: Mapping[str, Circle]


def participants_of(
    issuers: Sequence[Sequence[Any]], scopes: Sequence[Sequence[Any]], own_ids: Collection[str]
) -> Participants:
    """From the rows of READ_ISSUERS and READ_SCOPES.

    own_ids: issuer ids that are ours by the settings, whether the registry has them or not.
    """
    found = [
        Issuer(issuer_id, institution_id, own, Circle[circle], Circle[scope], *_bins(issuer_id, bins))
        for issuer_id, institution_id, own, circle, scope, bins in issuers
    ]
    missing = sorted(set(own_ids) - {issuer.issuer_id for issuer in found})
    found += [
        Issuer(issuer_id, issuer_id[:8], True, Circle.LOCAL, Circle.NATION, *_bins(issuer_id, None))
        for issuer_id in missing
    ]
    return Participants(tuple(found), {institution_id: Circle[scope] for institution_id, scope in scopes})


def read_participants(connection: psycopg.Connection[Any], own_ids: Collection[str]) -> Participants:
    """Issuers and acquirers as they are."""
    issuers = connection.execute(READ_ISSUERS).fetchall()
    return participants_of(issuers, connection.execute(READ_SCOPES).fetchall(), own_ids)


def _bins(issuer_id: str, bins: str | None) -> tuple[tuple[str, ...], bool]:
    """Citizen card numbers begin with 31 and the region, which ends the institution code."""
    if bins is not None:
        return tuple(bins.split(" ")), True
    region = issuer_id[4:8]
    return (f"31{region}",) if region.isdecimal() else (), False
