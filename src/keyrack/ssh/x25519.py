"""Multiplies a point of curve25519 by a public number, by OpenSSL where Python has it; holds no secret."""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any, Optional

from keyrack.ssh.modular_power import python_openssl

SIZE = 32
_KIND = 1034  # EVP_PKEY_X25519 of openssl/evp.h; other libraries number it otherwise, and make no key of it
_BASE_POINT = (9).to_bytes(SIZE, "little")
_FUNCTIONS = (
    ("EVP_PKEY_new_raw_private_key", "pointer", ("int", "pointer", "bytes", "size")),
    ("EVP_PKEY_new_raw_public_key", "pointer", ("int", "pointer", "bytes", "size")),
    ("EVP_PKEY_CTX_new", "pointer", ("pointer", "pointer")),
    ("EVP_PKEY_derive_init", "int", ("pointer",)),
    ("EVP_PKEY_derive_set_peer", "int", ("pointer", "pointer")),
    ("EVP_PKEY_derive", "int", ("pointer", "pointer", "pointer")),
    ("EVP_PKEY_free", None, ("pointer",)),
    ("EVP_PKEY_CTX_free", None, ("pointer",)),
    ("ERR_clear_error", None, ()),
)


class Multiplier:
    """`x25519(number, u)` of RFC 7748 section 5 for one number, whatever u; may be used by any thread.

    The number is one that RFC 7748 makes of 32 bytes: a multiple of eight between 2^254 and 2^255.
    """

    def __init__(self, number: int) -> None:
        if number % 8 or not 2**254 <= number < 2**255:
            raise ValueError("curve25519's numbers are multiples of eight between 2^254 and 2^255")
        self._number = number.to_bytes(SIZE, "little")
        self._own = threading.local()

    def times(self, u: bytes) -> Optional[bytes]:
        """The u-coordinate, in 32 bytes, of the number times the point with the given one; None where OpenSSL is not
        available, or where the product is the neutral element.
        """
        try:
            context: Optional[_Context] = self._own.context
        except AttributeError:
            context = self._own.context = _Context.made(self._number)
        return None if context is None else context.times(u)


class _Context:
    """OpenSSL's state for one number; for one thread alone."""

    def __init__(self, library: Any, context: int) -> None:
        import ctypes  # loaded already, by python_openssl

        self._library, self._context = library, context
        self._buffer = ctypes.create_string_buffer(SIZE)
        self._size = ctypes.c_size_t(SIZE)
        self._pointer = ctypes.byref(self._size)

    @classmethod
    def made(cls, number: bytes) -> "Optional[_Context]":
        """None where OpenSSL is not available, or the library is another one, which lacks X25519 under this number."""
        library = _library()
        if library is None:
            return None
        key = library.EVP_PKEY_new_raw_private_key(_KIND, None, number, SIZE)
        if key is None:
            return None
        context = library.EVP_PKEY_CTX_new(key, None)
        library.EVP_PKEY_free(key)  # the context holds it
        if context is None:
            return None
        made = cls(library, context)
        return made if library.EVP_PKEY_derive_init(context) == 1 and made.times(_BASE_POINT) is not None else None

    def times(self, u: bytes) -> Optional[bytes]:
        """As Multiplier.times."""
        library = self._library
        peer = library.EVP_PKEY_new_raw_public_key(_KIND, None, u, SIZE)
        if peer is None:
            return None
        try:
            if library.EVP_PKEY_derive_set_peer(self._context, peer) != 1:
                return None
            self._size.value = SIZE
            if library.EVP_PKEY_derive(self._context, self._buffer, self._pointer) != 1 or self._size.value != SIZE:
                library.ERR_clear_error()  # or Python's TLS would take it for its own
                return None
            return self._buffer.raw
        finally:
            library.EVP_PKEY_free(peer)

    def __del__(self) -> None:
        self._library.EVP_PKEY_CTX_free(self._context)


@lru_cache(maxsize=None)
def _library() -> Optional[Any]:
    return python_openssl(_FUNCTIONS, keep_gil=True)
