"""The golden day as the vectors tell it: PIN pads with the golden keys, and what the golden switch answered."""

from typing import Any

from terminal_sim.crypto import WorkingKeys
from terminal_sim.frames import PinPad, Terminal
from tests.golden.requests import MAC_IDS, Told, golden, suite, vectors

REQUESTS = [name for name, vector in vectors().items() if vector["direction"] == "request"]


def golden_terminal_of(vector: dict[str, Any]) -> Terminal:
    """The terminal of a golden frame, with its golden master key and the MAC of that frame."""
    tmk = bytes.fromhex(suite()["terminals"][vector["terminal"]]["tmk"])
    return Terminal(vector["terminal"], suite()["merchant"], tmk, MAC_IDS.get(vector["mac_algorithm"], 1))


def golden_pad(vector: dict[str, Any]) -> PinPad | None:
    """The PIN pad of a golden terminal."""
    keys = suite()["terminals"][vector["terminal"]]
    if vector["mac_algorithm"] is None:
        return None
    working = WorkingKeys(bytes.fromhex(keys["PIK"]), bytes.fromhex(keys["MAK"]), None)
    return PinPad(golden_terminal_of(vector), working)


def golden_originals() -> dict[tuple[str, str], Told]:
    """Every request and its answer, as the vectors tell them; of the refund's original only what the refund says."""
    told = {
        ("000002", golden(name).fields[11]): Told(golden(name), golden(name.replace("-REQ", "-RSP")))
        for name in REQUESTS
        if golden(name).mti in ("0100", "0200") and name.replace("-REQ", "-RSP") in vectors()
    }
    timeout = golden("ISO-05-TIMEOUT-REQ")
    told["000002", "000006"] = Told(timeout, golden("ISO-05-REVERSAL-RSP"))
    purchase, answer = golden("ISO-04-PURCHASE-REQ"), golden("ISO-04-PURCHASE-RSP")
    older = purchase._replace(fields=purchase.fields | {60: "2200000100050"})
    told["000001", "000005"] = Told(older, answer._replace(fields=answer.fields | {13: "0101"}))
    return told
