"""How a checksum is asked for and answered in a slot, and which algorithms there are.

    0                                        ANSWER_AT                  READING_AT
    ├ u16 length │ msgpack of Asked ──┤      ├ hex digest in ASCII ──┤  ├ may read │ wants to ┤

The answer does not overwrite the question: a worker that dies between the two leaves it for its successor.

Who asked says how many bytes may be read in all, and can change that while they are; the worker says how many it wants
to have read with the next block. Each is one word, which one process writes; GO_ON has the worker look again.
"""

from __future__ import annotations

import hashlib
import struct

import msgspec

DEFAULT_ALGORITHM = "blake2b"
DEFAULT_BLOCK_BYTES = 4 * 1024 * 1024
# The default's quarter to its fourfold, as imageio has it.
LEAST_BLOCK_BYTES = 1024 * 1024
MOST_BLOCK_BYTES = 16 * 1024 * 1024
BLOCK_UNIT_BYTES = 4096
# Digests of BLAKE2 are cut to this: blkhash does, and both kinds allow it.
BLAKE2_DIGEST_BYTES = 32

LENGTH = struct.Struct("<H")
ANSWER_AT = 2048
READING_AT = 3072
# As the machine has it: one store, which the other process sees whole or not at all.
WORD = struct.Struct("Q")
NO_LIMIT = 2**64 - 1


class Asked(msgspec.Struct, frozen=True):
    """What a CHECKSUM asks for; `block_bytes` are hashed at a time."""

    algorithm: str = DEFAULT_ALGORITHM
    block_bytes: int = DEFAULT_BLOCK_BYTES


class ChecksumRefused(Exception):
    """No such algorithm, or no such size of blocks."""


def algorithms() -> list[str]:
    """What is offered: every algorithm of hashlib here whose digest has one length (SHAKE's has not)."""
    return sorted(name for name in hashlib.algorithms_available if not name.startswith("shake") and _is_usable(name))


def _is_usable(name: str) -> bool:
    """OpenSSL lists what its policy then refuses, like MD5 under FIPS."""
    try:
        hashlib.new(name)
    except ValueError:
        return False
    return True


def check(asked: Asked) -> None:
    """Raises ChecksumRefused for a question that cannot be answered."""
    if asked.algorithm not in algorithms():
        raise ChecksumRefused(f"algorithm {asked.algorithm[:80]!r} is not one of {', '.join(algorithms())}")
    in_bounds = LEAST_BLOCK_BYTES <= asked.block_bytes <= MOST_BLOCK_BYTES
    if not in_bounds or asked.block_bytes % BLOCK_UNIT_BYTES:
        limits = f"{LEAST_BLOCK_BYTES} to {MOST_BLOCK_BYTES}, a multiple of {BLOCK_UNIT_BYTES}"
        raise ChecksumRefused(f"blocks of {asked.block_bytes} bytes: the limits are {limits}")


def ask(view: memoryview, asked: Asked) -> None:
    """Write the question into a slot; there is no limit yet."""
    question = msgspec.msgpack.encode(asked)
    LENGTH.pack_into(view, 0, len(question))
    view[LENGTH.size : LENGTH.size + len(question)] = question
    may_read(view, NO_LIMIT)
    wants(view, 0)


def may_read(view: memoryview, count: int) -> None:
    """So many bytes in all, from now on; what has been begun goes on."""
    WORD.pack_into(view, READING_AT, count)


def readable(view: memoryview) -> int:
    """How many bytes may be read in all."""
    count: int = WORD.unpack_from(view, READING_AT)[0]
    return count


def wants(view: memoryview, count: int) -> None:
    """So many bytes are read in all, with the next block."""
    WORD.pack_into(view, READING_AT + WORD.size, count)


def wanted(view: memoryview) -> int:
    """How many bytes the worker wants to have read."""
    count: int = WORD.unpack_from(view, READING_AT + WORD.size)[0]
    return count


def asked_in(view: memoryview) -> Asked:
    """The question in a slot. Raises ChecksumRefused where there is none that can be answered."""
    end = LENGTH.size + min(LENGTH.unpack_from(view)[0], ANSWER_AT - LENGTH.size)
    try:
        asked = msgspec.msgpack.decode(view[LENGTH.size : end], type=Asked)
    except msgspec.DecodeError as error:
        raise ChecksumRefused(str(error)) from error
    check(asked)
    return asked


def answer(view: memoryview, digest: str) -> int:
    """Write the hex digest into the slot; its length."""
    text = digest.encode()
    view[ANSWER_AT : ANSWER_AT + len(text)] = text
    return len(text)


def answered(view: memoryview, length: int) -> str:
    """The hex digest of a completion whose `value` is `length`."""
    return bytes(view[ANSWER_AT : ANSWER_AT + length]).decode()
