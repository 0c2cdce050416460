"""Offline records EPR1 and the merchant's clearing file, written from docs/purse_record.md and docs/clearing_files.md alone."""

from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from cryptography.hazmat.primitives import hashes

from tests.scenarios.foreign_crypto import Algorithm, card_key, crc16, tac

NORMAL, GREY, LOCKED, TEST = 0x00, 0x01, 0x02, 0x0F


@dataclass(frozen=True)
class Ride:
    """What a validator knows of one offline purchase. `when` is Asia/Shanghai; counters are those before the purchase."""

    pan: str
    counter: int
    amount_fen: int
    before_fen: int
    when: datetime
    psam: str
    psam_serial: int
    serial: int  # of the terminal's records
    issuer: str
    acquirer: str
    algorithm: Algorithm = "3DES"
    kind: int = NORMAL

    def tac(self, root: bytes) -> bytes:
        """TAC as the card makes it; root is the national DTK of the algorithm."""
        covered = self.amount_fen.to_bytes(4, "big") + b"\x06" + bytes.fromhex(self.psam)
        covered += self.psam_serial.to_bytes(4, "big") + bytes.fromhex(f"{self.when:%Y%m%d%H%M%S}")
        return tac(self.algorithm, card_key(self.algorithm, root, self.issuer, self.pan), covered)

    def record(self, card_tac: bytes) -> bytes:
        """The 96 bytes of EPR1 with this TAC."""
        city, acquirer_city = self.pan[2:6], self.acquirer[4:8]
        record = bytes([0x01, self.kind, 0x06, 0x04 if self.algorithm == "SM4" else 0x00, 0x01])
        record += b"\x41" if self.algorithm == "SM4" else b"\x01"
        record += bytes.fromhex(f"0{self.pan}{self.issuer}{city}") + b"\x01\x00"
        record += (
            self.counter.to_bytes(2, "big")
            + self.amount_fen.to_bytes(4, "big")
            + self.before_fen.to_bytes(4, "big")
        )
        record += (
            bytes.fromhex(f"{self.when:%Y%m%d%H%M%S}{self.psam}")
            + self.psam_serial.to_bytes(4, "big")
            + card_tac
        )
        record += self.serial.to_bytes(4, "big") + bytes.fromhex(f"{self.acquirer}FFFFFFFF{acquirer_city}")
        record += self.amount_fen.to_bytes(4, "big") + bytes([0x00, 0x02]) + bytes(15)
        return record + crc16(record)

    def next(self, **changes: object) -> "Ride":
        """The ride after this one with the same card at the same validator."""
        following: dict[str, object] = {
            "counter": self.counter + 1,
            "before_fen": self.before_fen - self.amount_fen,
            "psam_serial": self.psam_serial + 1,
            "serial": self.serial + 1,
        }
        return replace(self, **(following | changes))  # type: ignore[arg-type]  # values of mixed types, by field name


# ---------------------------------------------------------------------------------------------------------------- clearing file


@dataclass(frozen=True)
class Sale:
    """One line of MR; amounts in fen, positive when the merchant receives."""

    terminal_id: str
    trace: str
    account: str
    card: str
    amount_fen: int
    fee_fen: int
    net_fen: int


def signed_fen(text: str) -> int:
    """A signed amount: `C` receives, `D` pays."""
    assert text[0] in "CD"
    return int(text[1:]) * (1 if text[0] == "C" else -1)


def sm3(data: bytes) -> str:
    """SM3 in upper-case hexadecimal."""
    digest = hashes.Hash(hashes.SM3())
    digest.update(data)
    return digest.finalize().hex().upper()


def read_mr(path: Path) -> list[Sale]:
    """The lines of a merchant's file, after every check that docs/clearing_files.md asks of a receiver."""
    content = path.read_bytes()
    seal = path.with_name(path.name + ".ok").read_text(encoding="ascii")
    assert sm3(content) in seal.upper()
    assert path.name in seal
    lines = content.decode("ascii").split("\r\n")
    assert lines.pop() == ""
    header, *details, trailer = lines
    assert (len(header), len(trailer)) == (80, 90)
    assert header[0] == "H"
    assert header[1:3] + header[5:32] == path.name
    assert all(len(line) == int(header[69:73]) == 150 for line in details)
    sales = []
    for number, line in enumerate(details, 1):
        assert (line[0], int(line[1:9]), line[148:150]) == ("D", number, "00")
        amount, fee, net = (signed_fen(line[at : at + 16]) for at in (78, 94, 110))
        assert amount + fee == net
        sales.append(Sale(line[24:32], line[38:44], line[56:58], line[58:78].strip(), amount, fee, net))
    total_fen = sum(sale.net_fen for sale in sales if sale.net_fen > 0)
    counted = f"{len(sales):08d}{total_fen:015d}"
    assert header[46:69] == counted
    assert trailer[:26] == "T" + header[1:3] + counted
    assert trailer[26:] == sm3(content[: content.rindex(b"T" + header[1:3].encode() + counted.encode())])
    return sales
