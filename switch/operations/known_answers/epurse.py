"""Suite `epurse`: what card, PSAM and host exchange for loads, purchases, CAPP purchases and secure messaging.

MACs, TACs and their inputs come from the production code of `keys.purse`. The APDUs around them belong to card and
terminal; here they are put together from the command table, so that every stated value is looked at.
"""

from switch.domain.identifiers import diversifier_of
from switch.keys import purse
from switch.keys.primitives import (
    Algorithm,
    LoadKey,
    MaintenanceKey,
    PurchaseKey,
    SessionKey,
    TacKey,
    algorithm_named,
)
from switch.operations.known_answers.vector import Checker, Outs, Vector, VectorError, hexes

_OK = "9000"


def _algorithm(vector: Vector) -> Algorithm:
    algorithm = algorithm_named(str(vector.body.get("alg")))
    if "algorithm_id" in vector.given and vector.number("algorithm_id") != algorithm:
        raise VectorError("algorithm_id is not that of alg")
    return algorithm


def _key_bytes(vector: Vector) -> str:
    """Key version ‖ algorithm id, as cards answer them."""
    return vector.text("key_version") + vector.text("algorithm_id")


def load(vector: Vector) -> Outs:
    """圈存."""
    algorithm, text = _algorithm(vector), vector.text
    if vector.number("tti") != purse.TTI_LOAD:
        raise VectorError("tti of a load is 02")
    before, amount, atc = (
        vector.number("balance_before"),
        vector.number("amount"),
        vector.number("online_atc"),
    )
    terms = purse.LoadTerms(vector.octets("card_random"), atc, before, amount, vector.octets("terminal_no"))
    date, time = vector.octets("host_date"), vector.octets("host_time")
    session = purse.load_session_key(LoadKey(vector.octets("DLK"), algorithm), terms.card_random, atc)
    mac1_input = purse.load_mac1_input(terms)
    mac2_input = purse.load_mac2_input(amount, terms.terminal_no, date, time)
    tac_input = purse.load_tac_input(terms, date, time)
    mac1, mac2 = hexes(purse.session_mac(session, mac1_input)), hexes(purse.session_mac(session, mac2_input))
    tac = hexes(purse.tac(TacKey(vector.octets("DTK"), algorithm), tac_input))
    initialize = text("balance_before") + text("online_atc") + _key_bytes(vector) + text("card_random") + mac1
    return {
        "session_seed": hexes(purse.load_seed(terms.card_random, atc)),
        "SESLK": hexes(session.reveal()),
        "mac1_input": hexes(mac1_input),
        "MAC1": mac1,
        "mac2_input": hexes(mac2_input),
        "MAC2": mac2,
        "balance_after": f"{before + amount:08X}",
        "tac_input": hexes(tac_input),
        "TAC": tac,
        "apdu_initialize": "805000020B" + text("key_index") + text("amount") + text("terminal_no") + "10",
        "resp_initialize": initialize + _OK,
        "apdu_credit": "805200000B" + text("host_date") + text("host_time") + mac2 + "04",
        "resp_credit": tac + _OK,
        "apdu_prove": f"805A000202{atc + 1:04X}08",
        "resp_prove": mac2 + tac + _OK,
    }


def purchase(vector: Vector) -> Outs:
    """消費."""
    if vector.number("tti") != purse.TTI_PURCHASE:
        raise VectorError("tti of a purchase is 06")
    return _debit(vector, "80500102")


def capp_purchase(vector: Vector) -> Outs:
    """複合消費, with the ride record that becomes effective together with the debit."""
    if vector.number("tti") != purse.TTI_CAPP:
        raise VectorError("tti of a CAPP purchase is 09")
    record = str(vector.outs.get("capp_record_1E", ""))
    _check_ride_record(vector, bytes.fromhex(record))
    return {
        **_debit(vector, "80500302"),
        "capp_record_1E": record,
        "apdu_update_capp": f"80DC00F0{len(record) // 2:02X}{record}",
    }


def _check_ride_record(vector: Vector, record: bytes) -> None:
    """Whatever of a ride record follows from the inputs; line, industry and fares are the terminal's own."""
    amount = vector.number("amount")
    after = vector.number("balance_before") - amount
    expected = (
        (0, b"\x04" if amount else b"\x03"),  # exit pays, entry does not
        (1, bytes(2) + vector.octets("terminal_no")),
        (17, amount.to_bytes(4)),
        (21, after.to_bytes(4)),
        (25, vector.octets("date") + vector.octets("time")),
        (34, vector.octets("issuer_id")),
    )
    if len(record) != 48 or any(not record.startswith(value, start) for start, value in expected):
        raise VectorError("capp_record_1E does not follow from the inputs")


def _debit(vector: Vector, initialize: str) -> dict[str, object]:
    algorithm, text = _algorithm(vector), vector.text
    amount, tti, atc = vector.number("amount"), vector.number("tti"), vector.number("offline_atc")
    terminal_no, serial = vector.octets("terminal_no"), vector.number("psam_serial")
    date, time, card_random = vector.octets("date"), vector.octets("time"), vector.octets("card_random")
    session = purse.purchase_session_key(
        PurchaseKey(vector.octets("DPK"), algorithm), card_random, atc, serial
    )
    mac1_input = purse.purchase_mac1_input(amount, tti, terminal_no, date, time)
    mac2_input = amount.to_bytes(4)
    tac_input = purse.purchase_tac_input(amount, tti, terminal_no, serial, date, time)
    mac1, mac2 = hexes(purse.session_mac(session, mac1_input)), hexes(purse.session_mac(session, mac2_input))
    tac = hexes(purse.tac(TacKey(vector.octets("DTK"), algorithm), tac_input))
    moment, card = text("date") + text("time"), hexes(diversifier_of(text("asn")))
    sam = (
        text("card_random") + text("offline_atc") + text("amount") + text("tti") + moment + _key_bytes(vector)
    )
    answer = (
        text("balance_before") + text("offline_atc") + "000000" + _key_bytes(vector) + text("card_random")
    )
    return {
        "session_seed": hexes(purse.purchase_seed(card_random, atc, serial)),
        "SESPK": hexes(session.reveal()),
        "mac1_input": hexes(mac1_input),
        "MAC1": mac1,
        "mac2_input": hexes(mac2_input),
        "MAC2": mac2,
        "balance_after": f"{vector.number('balance_before') - amount:08X}",
        "tac_input": hexes(tac_input),
        "TAC": tac,
        "apdu_initialize": initialize
        + "0B"
        + text("key_index")
        + text("amount")
        + text("terminal_no")
        + "0F",
        "resp_initialize": answer + _OK,
        "apdu_psam_init": "8070000024" + sam + card + text("issuer_id") + "08",
        "resp_psam_init": text("psam_serial") + mac1 + _OK,
        "apdu_debit": "805401000F" + text("psam_serial") + moment + mac1 + "08",
        "resp_debit": tac + mac2 + _OK,
        "apdu_psam_credit": "8072000004" + mac2,
        "apdu_prove": f"805A00{tti:02X}02{atc + 1:04X}08",
        "resp_prove": mac2 + tac + _OK,
    }


def verify_tac(vector: Vector) -> Outs:
    """Whether a TAC is right."""
    key = TacKey(vector.octets("DTK"), _algorithm(vector))
    return {"valid": purse.tac(key, vector.octets("tac_input")) == vector.octets("TAC")}


def secure_messaging_mac(vector: Vector) -> Outs:
    """A command under the application maintenance key."""
    algorithm, challenge = _algorithm(vector), vector.octets("get_challenge_4")
    command = vector.octets("header") + vector.octets("data")
    mac = purse.maintenance_mac(MaintenanceKey(vector.octets("DAMK"), algorithm), challenge, command)
    return {
        "iv": hexes(challenge.ljust(algorithm.block_bytes, b"\0")),
        "mac_input": hexes(command),
        "MAC": hexes(mac),
        "apdu": hexes(command + mac),
    }


def published(vector: Vector) -> Outs:
    """Public walk-throughs in 3DES: session key, MAC1 and MAC2 over stated inputs."""
    algorithm, card_random = _algorithm(vector), vector.octets("card_random")
    if "DLK" in vector.given:
        name, key = "SESLK", LoadKey(vector.octets("DLK"), algorithm)
        session = purse.load_session_key(key, card_random, vector.number("online_atc"))
    else:
        name, spending = "SESPK", PurchaseKey(vector.octets("DPK"), algorithm)
        serial = vector.number("psam_serial")
        session = purse.purchase_session_key(spending, card_random, vector.number("offline_atc"), serial)
    return {name: hexes(session.reveal()), **_macs(session, vector)}


def _macs(session: SessionKey, vector: Vector) -> dict[str, object]:
    return {
        "MAC1": hexes(purse.session_mac(session, vector.octets("mac1_input"))),
        "MAC2": hexes(purse.session_mac(session, vector.octets("mac2_input"))),
    }


CHECKERS: dict[tuple[str, str], Checker] = {
    ("epurse", "load"): load,
    ("epurse", "purchase"): purchase,
    ("epurse", "capp_purchase"): capp_purchase,
    ("epurse", "verify_tac"): verify_tac,
    ("epurse", "secure_messaging_mac"): secure_messaging_mac,
    ("epurse", "published"): published,
}
