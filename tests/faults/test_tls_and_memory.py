"""Terminals over TLS, with and without certificates of their own; and what an idle or a busy terminal costs."""

import ssl
from collections.abc import AsyncIterator

import pytest

from terminal_sim.pos_client import Line
from tests.helpers.certificates import Authority, Pair
from tests.helpers.switch_process import SwitchProcess
from tests.helpers.till import LineClosedError, Seen, Till, Wire, check_books
from tests.helpers.town import Town

pytestmark = pytest.mark.server

IDLE = 2_000
IDLE_KB_MAX = 30


@pytest.fixture(scope="module")
def process(town: Town) -> SwitchProcess:
    return town.serve(fresh=True)


@pytest.fixture(scope="module")
def authority(town: Town) -> Authority:
    return Authority(town.folder, "authority")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Pair:
    return authority.issue("server")


@pytest.fixture
async def seen(town: Town, process: SwitchProcess) -> AsyncIterator[Seen]:
    assert process.alive()
    told = Seen()
    yield told
    check_books(town.database_url, [told])


def client(trusted: Authority, own: Pair | None = None) -> ssl.SSLContext:
    """How a terminal speaks TLS."""
    context = ssl.create_default_context(cafile=str(trusted.file))
    if own is not None:
        context.load_cert_chain(str(own.certificate), str(own.key))
    return context


async def test_terminals_speak_tls_and_nothing_else(
    town: Town, seen: Seen, authority: Authority, server: Pair
) -> None:
    switch = town.serve_beside(terminals__tls_certificate=server.certificate, terminals__tls_key=server.key)
    line = Line(switch.line.host, switch.line.port, client(authority))
    till = await Till(town.new_terminal(), seen, line).sign_on()
    card = town.new_card("rich")
    for _ in range(20):
        assert (await till.buy(card, 1)).fields[39] == "00"
    plain = await Wire.open(switch.line)
    plain.send(till.pos.pack(till.pos.echo()))
    assert await plain.closed_by_switch() == []
    old = client(authority)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    wire = await Wire.open(Line(line.host, line.port, old))
    assert (await wire.answer(till.pos.pack(till.pos.echo()))).fields[39] == "00"
    with pytest.raises(ssl.SSLCertVerificationError):
        await Wire.open(Line(line.host, line.port, ssl.create_default_context()))
    till.hang_up()
    town.stop(switch)


async def test_with_a_client_authority_a_terminal_needs_a_certificate_of_it(
    town: Town, seen: Seen, authority: Authority, server: Pair
) -> None:
    switch = town.serve_beside(
        terminals__tls_certificate=server.certificate,
        terminals__tls_key=server.key,
        terminals__tls_client_authority=authority.file,
    )

    def line(own: Pair | None) -> Line:
        return Line(switch.line.host, switch.line.port, client(authority, own))

    till = await Till(town.new_terminal(), seen, line(authority.issue("terminal"))).sign_on()
    assert (await till.buy(town.new_card(), 1)).fields[39] == "00"
    stranger = Authority(town.folder, "stranger").issue("intruder")
    for own in (None, stranger):
        with pytest.raises((LineClosedError, OSError)):
            await (await Wire.open(line(own))).ask(till.pos.pack(till.pos.echo()))
    assert (await till.buy(town.new_card(), 1)).fields[39] == "00"
    till.hang_up()
    town.stop(switch)


@pytest.mark.slow
async def test_an_idle_terminal_costs_at_most_thirty_kilobytes(
    town: Town, process: SwitchProcess, seen: Seen
) -> None:
    till = await Till(town.new_terminal(), seen, process.line).sign_on()
    card = town.new_card("rich")
    for _ in range(200):
        assert (await till.buy(card, 1)).fields[39] == "00"
    before_kb = process.private_kb()
    wires = []
    for start in range(0, IDLE, 100):
        batch = [await Wire.open(process.line) for _ in range(100)]
        for place, wire in enumerate(batch):
            purchase = till.pos.purchase(card, 1) if place == start % 100 else till.pos.echo()
            assert (await wire.answer(till.pos.pack(purchase))).fields[39] == "00"
        wires += batch
    assert process.metric("cardswitch_lines_open") >= IDLE
    each_kb = (process.private_kb() - before_kb) / IDLE
    assert each_kb <= IDLE_KB_MAX
    assert (await till.buy(card, 1)).fields[39] == "00"
