"""Powers modulo a large public number, by OpenSSL where Python has it; never for secrets: its timing reveals them.

Python's own pow() takes 17 ms at 2,048 bits and 126 ms at 4,096, and stops every other thread meanwhile. The
libcrypto that hashlib is linked to takes a tenth of that, without stopping them.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import Any, Callable, Optional, Tuple


def power_to(exponent: int, modulus: int) -> Callable[[int], int]:
    """`pow(…, exponent, modulus)` for numbers above zero and below modulus, where both are used again and again.

    At 255 bits a fifth of the time of Python's own.
    """
    own = threading.local()

    def raised(base: int) -> int:
        try:
            fixed: Optional[_FixedExponent] = own.fixed
        except AttributeError:
            fixed = own.fixed = _FixedExponent.made(exponent, modulus)
        if fixed is None or not base:
            return pow(base, exponent, modulus)
        return fixed.raised(base)

    return raised


class _FixedExponent:
    """OpenSSL's numbers for one exponent and modulus, and room for a base and a result; for one thread alone."""

    def __init__(self, library: Any, numbers: tuple[int, ...], context: int, size: int) -> None:
        import ctypes  # loaded already, by _libcrypto

        self._library, self._size, self._context = library, size, context
        self._result, self._base, self._exponent, self._modulus = numbers
        self._buffer = ctypes.create_string_buffer(size)

    @classmethod
    def made(cls, exponent: int, modulus: int) -> "Optional[_FixedExponent]":
        """None where OpenSSL is not available."""
        library = _libcrypto(keep_gil=True)
        if library is None:
            return None
        context = library.BN_CTX_new()
        allocated = (library.BN_new(), library.BN_new(), _number(library, exponent), _number(library, modulus))
        numbers = tuple(number for number in allocated if number is not None)
        if context is None or len(numbers) < len(allocated):
            return None
        return cls(library, numbers, context, (modulus.bit_length() + 7) // 8)

    def raised(self, base: int) -> int:
        """The power of a base."""
        library, size = self._library, self._size
        library.BN_bin2bn(base.to_bytes(size, "big"), size, self._base)
        if library.BN_mod_exp(self._result, self._base, self._exponent, self._modulus, self._context) != 1:
            raise ArithmeticError("OpenSSL cannot raise this")
        library.BN_bn2binpad(self._result, self._buffer, size)
        return int.from_bytes(self._buffer.raw, "big")

    def __del__(self) -> None:
        for number in (self._result, self._base, self._exponent, self._modulus):
            self._library.BN_free(number)
        self._library.BN_CTX_free(self._context)


def power(base: int, exponent: int, modulus: int) -> int:
    """`pow(base, exponent, modulus)` for numbers above zero."""
    library = _libcrypto()
    if library is not None:
        result = _openssl_power(library, base, exponent, modulus)
        if result is not None:
            return result
    return pow(base, exponent, modulus)


_Functions = Tuple[Tuple[str, Optional[str], Tuple[str, ...]], ...]
# From openssl/bn.h; the same in OpenSSL 1.1 and 3 and in LibreSSL. Every pointer is opaque here.
_NUMBERS: _Functions = (
    ("BN_CTX_new", "pointer", ()),
    ("BN_CTX_free", None, ("pointer",)),
    ("BN_new", "pointer", ()),
    ("BN_free", None, ("pointer",)),
    ("BN_bin2bn", "pointer", ("bytes", "int", "pointer")),
    ("BN_bn2binpad", "int", ("pointer", "bytes", "int")),
    ("BN_mod_exp", "int", ("pointer",) * 5),
)


def python_openssl(functions: _Functions, *, keep_gil: bool) -> Optional[Any]:
    """The libcrypto that hashlib is linked to; None where there is none, or it lacks one of these functions.

    functions: name, result and parameters, as "pointer", "bytes", "int" and "size"; keep_gil: do not release the GIL
    during a call, which for short calls costs less than to release it and take it again.
    """
    # Imported here: 5 MB and 8 ms, which a host's agent does without, as it never does this mathematics.
    import ctypes

    try:
        import _hashlib
    except ImportError:  # a Python built without OpenSSL
        return None
    path = getattr(_hashlib, "__file__", None)
    if path is None:  # part of the Python program itself
        return None
    kinds = {
        None: None,
        "pointer": ctypes.c_void_p,
        "bytes": ctypes.c_char_p,
        "int": ctypes.c_int,
        "size": ctypes.c_size_t,
    }
    try:
        # Looking a name up in this library looks in the ones it is linked to as well.
        library = ctypes.PyDLL(path) if keep_gil else ctypes.CDLL(path)
        for name, answers, takes in functions:
            function = getattr(library, name)
            function.restype, function.argtypes = kinds[answers], [kinds[kind] for kind in takes]
    except (OSError, AttributeError):
        return None
    return library


@lru_cache(maxsize=None)
def _libcrypto(*, keep_gil: bool = False) -> Optional[Any]:
    return python_openssl(_NUMBERS, keep_gil=keep_gil)


def _openssl_power(library: Any, base: int, exponent: int, modulus: int) -> Optional[int]:
    import ctypes  # loaded already, by _libcrypto

    context = library.BN_CTX_new()
    numbers = [library.BN_new(), *(_number(library, value) for value in (base, exponent, modulus))]
    try:
        if context is None or None in numbers or library.BN_mod_exp(*numbers, context) != 1:
            return None
        size = (modulus.bit_length() + 7) // 8
        result = ctypes.create_string_buffer(size)
        if library.BN_bn2binpad(numbers[0], result, size) != size:
            return None
        return int.from_bytes(result.raw, "big")
    finally:
        for number in numbers:
            library.BN_free(number)  # both take NULL
        library.BN_CTX_free(context)


def _number(library: Any, value: int) -> Optional[int]:
    data = value.to_bytes((value.bit_length() + 7) // 8, "big")
    number: Optional[int] = library.BN_bin2bn(data, len(data), None)
    return number
