"""Text of images as headers carry it."""

from __future__ import annotations


def safe(text: str, is_name: bool = False) -> str:
    """Text for a header: UTF-8 as it is; what would end the line, or a name, is percent-encoded."""
    encoded = bytearray()
    for byte in text.encode():
        if byte < 0x20 or byte == 0x7F or (is_name and (byte >= 0x80 or chr(byte) in ' "(),/:;<=>?@[\\]{}')):
            encoded += b"%%%02X" % byte
        else:
            encoded.append(byte)
    # Headers are written as Latin-1: so these bytes go out as they are.
    return encoded.decode("latin-1")
