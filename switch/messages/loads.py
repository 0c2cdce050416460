"""Loads 圈存, their confirms, and what a reversal says about the purse."""

from collections.abc import Mapping, Sequence

from switch.domain.errors import FormatError
from switch.domain.identifiers import CardNumber, asn_of
from switch.domain.money import Fen
from switch.domain.transactions import (
    Load,
    LoadConfirm,
    LoadSource,
    PurseConfirmData,
    PurseLoadData,
    PurseReversalData,
    Refused,
)
from switch.messages.message import Fields
from switch.messages.parts import (
    MISSING,
    amount_of,
    check_no_pin,
    need,
    original_of,
    pin_of,
    tags_of,
    tracks_encrypted,
)
from switch.messages.structures import CONFIRM_TAGS, LOAD_REVERSAL_TAGS, LOAD_TAGS

SOURCES = {  # digits TT and AA of field 3
    ("60", "00"): LoadSource.BOUND_BANK,
    ("60", "20"): LoadSource.BOUND_BANK,
    ("60", "10"): LoadSource.ONLINE,
    ("62", "00"): LoadSource.OTHER_BANK,
    ("63", "00"): LoadSource.CASH,
}
MEDICAL = "40"
TO_PURSE = frozenset({"00", "50"})  # digits BB
TO_ONLINE = "10"
PURSE_LOAD_TYPE = b"\x02"
ALGORITHM_IDS = frozenset({0x00, 0x04})
CARD_GONE = 0x0000
OTHER_CARD = "DF11 names another card than field 2"


def read_load(fields: Fields, card: CardNumber) -> Load | Refused:
    """0200 with 60, 62 or 63."""
    amount_fen = amount_of(fields)
    tags = tags_of(fields)
    pin = pin_of(fields, tags)
    found = _source(fields, card, amount_fen, tags)
    if isinstance(found, Refused):
        return found
    purse = None
    if fields[3][4:] in TO_PURSE:
        purse = _load_data(tags)
        if found is not LoadSource.OTHER_BANK and purse.asn != asn_of(card):
            return Refused(card, amount_fen, "14", OTHER_CARD)
    return Load(
        card,
        found,
        amount_fen,
        pin,
        purse,
        fields[22],
        str(fields.get(35, "")),
        str(fields.get(36, "")),
        tracks_encrypted(fields),
        str(fields.get(14, "")),
    )


def read_load_confirm(fields: Fields, card: CardNumber) -> LoadConfirm | Refused:
    """0220 with 60, 62 or 63."""
    amount_fen = amount_of(fields)
    tags = tags_of(fields)
    check_no_pin(fields, tags)
    original = original_of(fields)
    rrn = need(fields, 37)
    found = _source(fields, card, amount_fen, tags)
    if isinstance(found, Refused):
        return found
    purse = _confirm_data(tags) if fields[3][4:] in TO_PURSE else None
    if purse is not None and found is not LoadSource.OTHER_BANK and purse.asn != asn_of(card):
        return Refused(card, amount_fen, "14", OTHER_CARD)
    return LoadConfirm(card, found, amount_fen, original, rrn, purse, fields[22])


def read_load_reversal(code: str, tags: Mapping[str, bytes]) -> PurseReversalData | None:
    """What the card still said when a load is reversed; None when it could not be read, or no purse is concerned."""
    present = [tag for tag in LOAD_REVERSAL_TAGS if tag in tags]
    if not present:
        return None
    if code[4:] not in TO_PURSE:
        raise FormatError("purse data in a load to the online account", field="55")
    _need_tags(tags, LOAD_REVERSAL_TAGS)
    return PurseReversalData(
        asn=tags["DF11"].hex(),
        balance_fen=Fen(int.from_bytes(tags["DF13"], "big")),
        online_atc=int.from_bytes(tags["DF14"], "big"),
        status_word=int.from_bytes(tags["DF33"], "big"),
    )


def _source(
    fields: Fields, card: CardNumber, amount_fen: Fen, tags: Mapping[str, bytes]
) -> LoadSource | Refused:
    """Whose money, or why not; a load to the online account must not speak of a purse."""
    code = fields[3]
    if code[2:4] == MEDICAL:
        return Refused(card, amount_fen, "57", "the medical account cannot be the source of a load")
    source = SOURCES.get((code[:2], code[2:4]))
    to_online = code[4:] == TO_ONLINE
    if (
        source is None
        or not (to_online or code[4:] in TO_PURSE)
        or (to_online and source is LoadSource.ONLINE)
    ):
        return Refused(card, amount_fen, "40", "account types are not those of a load")
    if (
        to_online and 55 in fields and set(tags) != {"DF51"}
    ):  # SM4 terminals have their PIN block nowhere else
        raise FormatError("a load to the online account carries nothing but DF51 in it", field="55")
    return source


def _need_tags(tags: Mapping[str, bytes], wanted: Sequence[str]) -> None:
    if not tags:
        raise FormatError(MISSING, field="55")
    for tag in wanted:
        if tag not in tags:
            raise FormatError("mandatory tag is missing", field=tag)


def _check_type(tags: Mapping[str, bytes]) -> None:
    if tags["DF19"] != PURSE_LOAD_TYPE:
        raise FormatError("transaction type is not 02, purse load", field="DF19")


def _load_data(tags: Mapping[str, bytes]) -> PurseLoadData:
    _need_tags(tags, LOAD_TAGS)
    _check_type(tags)
    version, algorithm_id = tags["DF15"]
    if algorithm_id not in ALGORITHM_IDS:
        raise FormatError("algorithm is neither 00 nor 04", field="DF15")
    return PurseLoadData(
        asn=tags["DF11"].hex(),
        issuer_id=tags["DF12"],
        key_index=tags["DF1A"][0],
        key_version=version,
        algorithm_id=algorithm_id,
        balance_fen=Fen(int.from_bytes(tags["DF13"], "big")),
        online_atc=int.from_bytes(tags["DF14"], "big"),
        card_random=tags["DF16"],
        mac1=tags["DF17"],
        terminal_no=tags["DF18"],
    )


def _confirm_data(tags: Mapping[str, bytes]) -> PurseConfirmData:
    """Without DF31 and DF32 exactly when DF33 is 0000: the card was gone after CREDIT FOR LOAD."""
    _need_tags(tags, CONFIRM_TAGS)
    _check_type(tags)
    status_word = int.from_bytes(tags["DF33"], "big")
    tac: bytes | None = None
    balance_after_fen: Fen | None = None
    if status_word == CARD_GONE:
        if "DF31" in tags:
            raise FormatError("a TAC though DF33 says that the card was gone", field="DF31")
    else:
        _need_tags(tags, ("DF31", "DF32"))
        tac = tags["DF31"]
        balance_after_fen = Fen(int.from_bytes(tags["DF32"], "big"))
    return PurseConfirmData(
        asn=tags["DF11"].hex(),
        online_atc=int.from_bytes(tags["DF14"], "big"),
        terminal_no=tags["DF18"],
        host_date=tags["DF21"],
        host_time=tags["DF22"],
        tac=tac,
        balance_after_fen=balance_after_fen,
        status_word=status_word,
    )
