"""Suite `mac`: the terminal MACs."""

from switch.keys.macs import CbcMac, CupEcbMac, RetailMac, xor_of_blocks
from switch.keys.primitives import Algorithm, MacKey
from switch.operations.known_answers.vector import Checker, Outs, Vector, VectorError, hexes


def mac_all(vector: Vector) -> Outs:
    """All MACs over one message."""
    data = vector.octets("data")
    double = MacKey(vector.octets("key_3des"), Algorithm.TDES)
    single = MacKey(vector.octets("key_des"), Algorithm.TDES)
    national = MacKey(vector.octets("key_sm4"), Algorithm.SM4)
    cup, cup_single, cup_national = CupEcbMac(double), CupEcbMac(single), CupEcbMac(national)
    chained = CbcMac(national)
    return {
        "cup_ecb_3des_xor": f"{xor_of_blocks(data, 8):016X}",
        "cup_ecb_3des_block": hexes(cup.steps(data)[3]),
        "cup_ecb_3des_field64": cup.field64(data).decode(),
        "cup_ecb_des_block": hexes(cup_single.steps(data)[3]),
        "cup_ecb_des_field64": cup_single.field64(data).decode(),
        "x99_block": hexes(CbcMac(double).field64(data)),
        "x919_block": hexes(RetailMac(double).field64(data)),
        "cup_ecb_sm4_xor": f"{xor_of_blocks(data, 16):032X}",
        "cup_ecb_sm4_block": hexes(cup_national.steps(data)[3]),
        "cup_ecb_sm4_field64": cup_national.field64(data).decode(),
        "sm4_cbc_block": hexes(chained.block(data)),
        "sm4_cbc_field64": hexes(chained.field64(data)),
    }


def published(vector: Vector) -> Outs:
    """Public examples; `alg` says which MAC."""
    data, material = vector.octets("data"), vector.octets("key")
    match vector.body.get("alg"):
        case "CUP-ECB-3DES" | "CUP-ECB-DES" | "CUP-ECB-SM4" as name:
            algorithm = Algorithm.SM4 if name.endswith("SM4") else Algorithm.TDES
            engine = CupEcbMac(MacKey(material, algorithm))
            xor, first, second_input, block = engine.steps(data)
            return {
                "xor": f"{xor:0{algorithm.block_bytes * 2}X}",
                "first_encryption": hexes(first),
                "second_input": hexes(second_input),
                "block": hexes(block),
                "field64": engine.field64(data).decode(),
            }
        case "X9.9-DES-CBC":
            return {"block": hexes(CbcMac(MacKey(material, Algorithm.TDES)).field64(data))}
        case "X9.19-3DES":
            return {"block": hexes(RetailMac(MacKey(material, Algorithm.TDES)).field64(data))}
        case "SM4-CBC-MAC":
            # Ours always begins with IV zero; a given IV is the same as XORing it into the first block.
            start = int.from_bytes(data[:16]) ^ int.from_bytes(vector.octets("iv"))
            return {
                "block": hexes(CbcMac(MacKey(material, Algorithm.SM4)).block(start.to_bytes(16) + data[16:]))
            }
        case _:
            raise VectorError("unknown alg")


CHECKERS: dict[tuple[str, str], Checker] = {("mac", "mac_all"): mac_all, ("mac", "published"): published}
