"""Offline records of the town's buses, signed by the simulator's code under the town's keys."""

from datetime import datetime, timedelta
from itertools import count

from switch.domain.calendar import SHANGHAI
from terminal_sim import crypto
from terminal_sim.frames import CardData, Terminal
from terminal_sim.records import OfflineRecord, Phase, Place, RecordKind, bcd_moment
from tests.helpers.town import DTK, OPENING_FEN, psam_of

ISSUER = bytes.fromhex("99993350FFFFFFFF")


class Bus:
    """A validator with a PSAM: takes fares, numbers its records."""

    def __init__(self, terminal: Terminal) -> None:
        self.psam = bytes.fromhex(psam_of(terminal.terminal_id))
        self._serials = count(1)

    def ride(self, card: CardData, atc: int, amount_fen: int) -> bytes:
        """One good record of a minute ago, 96 bytes. atc: rides of this card before; the amount of each was the same."""
        serial = next(self._serials)
        moment = bcd_moment(datetime.now(SHANGHAI) - timedelta(minutes=1))
        asn = bytes.fromhex("0" + card.pan)
        issuer_key = crypto.diversify(crypto.Algorithm.SM4, bytes.fromhex(DTK["SM4"]), ISSUER)
        key = crypto.diversify(crypto.Algorithm.SM4, issuer_key, asn[2:])
        signed = amount_fen.to_bytes(4) + b"\x06" + self.psam + serial.to_bytes(4) + moment
        record = OfflineRecord(
            kind=RecordKind.NORMAL,
            tti=6,
            algorithm_id=4,
            key_version=1,
            key_index=0x41,
            asn=asn,
            issuer_id=ISSUER,
            card_city=b"\x33\x50",
            card_type=1,
            card_subtype=0,
            offline_atc=atc,
            amount_fen=amount_fen,
            balance_before_fen=OPENING_FEN - atc * amount_fen,
            moment=moment,
            psam_number=self.psam,
            psam_serial=serial.to_bytes(4),
            tac=crypto.tac(crypto.Algorithm.SM4, key, signed),
            full_fare_fen=amount_fen,
            phase=Phase.NONE,
            place=Place(ISSUER),
        )
        return record.pack(serial)
