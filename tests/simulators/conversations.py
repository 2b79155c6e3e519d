"""Conversations that a storage SCU could have, and damage to them: what the fuzzer says to a listener."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Callable
from contextlib import suppress

from tests.listening import EXPLICIT_LITTLE, MG_FOR_PRESENTATION, encoded, mammogram
from tests.simulators.pdu_bytes import item
from tests.simulators.raw_scu import (
    IMPLICIT_LITTLE,
    VERIFICATION,
    Proposal,
    associate_request,
    p_data,
)

CALLED = "DICOM_NODE"
_RELEASE = struct.pack(">BxIxxxx", 0x05, 4)
_ABORT = struct.pack(">BxIxxBB", 0x07, 4, 0, 0)
_ODD_NUMBERS = (
    0,
    1,
    2,
    5,
    6,
    7,
    0x7F,
    0x80,
    0xFF,
    0xFFFE,
    0xFFFF,
    0x10000,
    0x7FFFFFFF,
    0xFFFFFFFE,
    0xFFFFFFFF,
)
_ANSWERS_S = 0.5


def command_set(values: dict[int, bytes]) -> bytes:
    """Encode a command set with its group length (PS3.7 6.3.1)."""
    body = b"".join(struct.pack("<HHI", 0, tag, len(value)) + value for tag, value in values.items())
    return struct.pack("<HHII", 0, 0, 4, len(body)) + body


def good_conversation(ordinal: int) -> list[bytes]:
    """Every PDU of one association that stores one object, asks by C-ECHO and releases."""
    dataset = mammogram(ordinal, StudyInstanceUID=f"2.25.{ordinal + 1}")
    body, uid = encoded(dataset), str(dataset.SOPInstanceUID).encode()
    uid += b"\0" * (len(uid) % 2)
    proposals = (Proposal(MG_FOR_PRESENTATION, EXPLICIT_LITTLE), Proposal(VERIFICATION, IMPLICIT_LITTLE))
    store = command_set(
        {
            0x0002: MG_FOR_PRESENTATION.encode() + b"\0" * (len(MG_FOR_PRESENTATION) % 2),
            0x0100: struct.pack("<H", 0x0001),
            0x0110: struct.pack("<H", 1),
            0x0700: struct.pack("<H", 0),
            0x0800: struct.pack("<H", 1),
            0x1000: uid,
        }
    )
    echo = command_set(
        {
            0x0002: VERIFICATION.encode() + b"\0",
            0x0100: struct.pack("<H", 0x0030),
            0x0110: struct.pack("<H", 2),
            0x0800: struct.pack("<H", 0x0101),
        }
    )
    half = len(body) // 2
    return [
        associate_request(proposals, "FUZZER", CALLED),
        p_data(store, 1, 0x03),
        p_data(body[:half], 1, 0x00),
        p_data(body[half:], 1, 0x02),
        p_data(echo, 3, 0x03),
        _RELEASE,
    ]


def damaged(pdus: list[bytes], dice: random.Random) -> list[bytes]:
    """Damage a conversation in one to four ways."""
    for _ in range(dice.randint(1, 4)):
        pdus = dice.choice(_DAMAGES)(pdus, dice)
    return pdus


def say(port: int, pdus: list[bytes]) -> None:
    """Say it all, stop sending, and read whatever is answered."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as line, suppress(OSError):
        for pdu in pdus:
            line.sendall(pdu)
        line.shutdown(socket.SHUT_WR)
        line.settimeout(_ANSWERS_S)
        while line.recv(65536):
            pass


def _somewhere(pdus: list[bytes], dice: random.Random, change: Callable[[bytes], bytes]) -> list[bytes]:
    if not pdus:
        return pdus
    place = dice.randrange(len(pdus))
    return [*pdus[:place], change(pdus[place]), *pdus[place + 1 :]]


def _flipped(pdus: list[bytes], dice: random.Random) -> list[bytes]:
    def change(pdu: bytes) -> bytes:
        spoiled = bytearray(pdu)
        for _ in range(dice.randint(1, 8)):
            if spoiled:
                # Heads matter more than pixels.
                spoiled[dice.randrange(min(len(spoiled), dice.choice((12, 90, len(spoiled)))))] ^= (
                    1 << dice.randrange(8)
                )
        return bytes(spoiled)

    return _somewhere(pdus, dice, change)


def _lying_length(pdus: list[bytes], dice: random.Random) -> list[bytes]:
    number = dice.choice(_ODD_NUMBERS)

    def change(pdu: bytes) -> bytes:
        form, place = dice.choice(((">I", 2), (">I", 6), (">H", 76), ("<I", 16), ("<I", 24), ("<H", 12)))
        width = struct.calcsize(form)
        value = struct.pack(form, number & (1 << 8 * width) - 1)
        return pdu[:place] + value + pdu[place + width :]

    return _somewhere(pdus, dice, change)


def _cut(pdus: list[bytes], dice: random.Random) -> list[bytes]:
    return _somewhere(pdus, dice, lambda pdu: pdu[: dice.randrange(len(pdu) + 1)])


def _inserted(pdus: list[bytes], dice: random.Random) -> list[bytes]:
    def change(pdu: bytes) -> bytes:
        place = dice.randrange(len(pdu) + 1)
        return pdu[:place] + dice.randbytes(dice.choice((1, 2, 4, 16, 300))) + pdu[place:]

    return _somewhere(pdus, dice, change)


def _shuffled(pdus: list[bytes], dice: random.Random) -> list[bytes]:
    return dice.sample(pdus, len(pdus))


def _repeated(pdus: list[bytes], dice: random.Random) -> list[bytes]:
    return [pdu for pdu in pdus for _ in range(dice.choice((1, 1, 1, 2, 20)))]


def _lost(pdus: list[bytes], dice: random.Random) -> list[bytes]:
    return [pdu for pdu in pdus if dice.random() > 0.3]


def _strange_pdu(pdus: list[bytes], dice: random.Random) -> list[bytes]:
    body = dice.randbytes(dice.choice((0, 4, 10, 68, 500)))
    strange = dice.choice(
        (
            struct.pack(">BxI", dice.randrange(256), len(body)) + body,
            p_data(dice.randbytes(50), dice.randrange(256), dice.randrange(256)),
            struct.pack(">BxI", 0x04, 0),
            struct.pack(">BxIIBB", 0x04, 6, dice.choice(_ODD_NUMBERS), 1, 3),
            _ABORT,
            _RELEASE,
        )
    )
    place = dice.randrange(len(pdus) + 1)
    return [*pdus[:place], strange, *pdus[place:]]


def _strange_command(pdus: list[bytes], dice: random.Random) -> list[bytes]:
    tags = (0x0002, 0x0003, 0x0100, 0x0110, 0x0120, 0x0700, 0x0800, 0x0900, 0x1000, 0x1001, 0x1031)
    values = {
        tag: dice.choice((b"", struct.pack("<H", dice.randrange(65536)), b"1.2.3\0", dice.randbytes(70)))
        for tag in dice.sample(tags, dice.randint(0, len(tags)))
    }
    place = dice.randrange(len(pdus) + 1)
    return [*pdus[:place], p_data(command_set(values), dice.choice((1, 3, 5)), 0x03), *pdus[place:]]


def _strange_request(pdus: list[bytes], dice: random.Random) -> list[bytes]:
    kinds = (0x10, 0x20, 0x30, 0x40, 0x50, 0x51, 0x52, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59, 0xFF)
    items = b"".join(
        item(dice.choice(kinds), dice.randbytes(dice.choice((0, 1, 4, 20))))
        for _ in range(dice.randint(0, 12))
    )
    title = dice.choice((b"FUZZER", b"\0" * 16, b"\n" * 16, b" " * 16, b"A\\B", dice.randbytes(16)))
    body = struct.pack(">Hxx16s16s32x", dice.choice((0, 1, 65535)), CALLED.ljust(16).encode(), title) + items
    return [struct.pack(">BxI", 0x01, len(body)) + body, *pdus[1:]]


_DAMAGES = (
    _flipped,
    _lying_length,
    _cut,
    _inserted,
    _shuffled,
    _repeated,
    _lost,
    _strange_pdu,
    _strange_command,
    _strange_request,
)
