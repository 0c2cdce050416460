"""Whatever comes in, a card and a PSAM answer with a status word, and money moves only with a valid MAC."""

from hypothesis import given, settings
from hypothesis import strategies as st

from terminal_sim.card_os import CardOs
from terminal_sim.psam import CREDIT_SAM, INIT_SAM
from tests.unit.terminal_sim.cards import make_card, make_psam, selected

INSTRUCTIONS = sorted({*make_card().handlers, 0xC0, 0x70})
COMMANDS = st.builds(
    lambda cla, ins, p1, p2, rest: bytes((cla, ins, p1, p2)) + rest,
    st.sampled_from([0x00, 0x04, 0x80, 0x84]),
    st.sampled_from(INSTRUCTIONS),
    st.sampled_from([0, 1, 2, 3, 0x41, 0x95, 0x97]),
    st.sampled_from([0, 1, 2, 4, 6, 9, 0x41, 0xC4, 0xD0, 0xF0, 0xF4]),
    st.one_of(
        st.binary(max_size=64),
        st.binary(min_size=1, max_size=60).map(lambda data: bytes((len(data),)) + data),
        st.binary(min_size=11, max_size=11).map(lambda data: b"\x0b\x41\x00\x00" + data[2:] + b"\x00"),
    ),
)


@settings(max_examples=60)
@given(st.lists(st.one_of(COMMANDS, st.binary(max_size=300)), max_size=30))
def test_a_card_survives_noise_and_its_balance_does_not_move(commands: list[bytes]) -> None:
    card = selected(make_card(capp_ids=[1]))
    for command in commands:
        answer = card.transmit(command)
        assert 2 <= len(answer) <= 258
    assert (card.balance_fen, card.online_atc, card.offline_atc) == (10_000, 0, 0)
    assert isinstance(card, CardOs)


@settings(max_examples=60)
@given(st.lists(st.one_of(st.binary(max_size=60), st.binary(min_size=36, max_size=36)), max_size=20))
def test_a_psam_survives_noise(data: list[bytes]) -> None:
    psam = make_psam()
    for one in data:
        for command in (
            one,
            bytes((0x80, INIT_SAM, 0, 0, len(one))) + one,
            bytes((0x80, CREDIT_SAM, 0, 0)) + one,
        ):
            assert len(psam.transmit(command)) >= 2
