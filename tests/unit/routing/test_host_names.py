"""From an institution to the hosts that the settings name."""

from switch.routing.destinations import LEDGER, UNKNOWN_ISSUER, Destination, Way
from switch.routing.host_names import HostNames
from switch.settings import HostSettings


def host(name: str, institution: str) -> HostSettings:
    return HostSettings(name=name, institution=institution, host="127.0.0.1", port=1)


NAMES = HostNames([host("icbc", "01020000"), host("next-city", "99993310"), host("icbc-2", "00001020000")])
ICBC, ICBC_2 = Destination(Way.HOST, "icbc"), Destination(Way.HOST, "icbc-2")


def test_an_institutions_hosts_are_found_in_the_order_of_the_settings() -> None:
    assert NAMES.names == {"icbc", "icbc-2", "next-city"}
    assert NAMES.of_institution("01020000") == (ICBC, ICBC_2)
    for stranger in ("01030000", "", "bank", "²"):
        assert NAMES.of_institution(stranger) == ()


#   destination                              links
BEHIND = [
    (ICBC, ("icbc",)),
    (Destination(Way.HOST, "ccb"), ()),
    (Destination(Way.CITY, "99993310"), ("next-city",)),
    (Destination(Way.CITY, "01020000"), ("icbc", "icbc-2")),
    (Destination(Way.CITY, "99993320"), ()),
    (LEDGER, ()),
    (UNKNOWN_ISSUER, ()),
]


def test_links_lie_behind_hosts_and_cities_and_behind_nothing_else() -> None:
    for destination, links in BEHIND:
        assert NAMES.names_of(destination) == links
        assert NAMES.has(destination) == bool(links)


def test_without_hosts_there_is_no_link_to_anybody() -> None:
    assert not HostNames().has(ICBC)
    assert HostNames().of_institution("01020000") == ()
