"""The error of text that is not accepted as a public key; its message never quotes what was pasted."""

from __future__ import annotations


class KeyProblem(ValueError):
    """Why a text is not accepted as a public key: `code` for programs, the message for people.

    The message says what is wrong and what to do next. Codes are stable: not-text, empty, too-long,
    private-key, several-keys, options, unknown-type, certificate, dsa, not-a-key, base64, type-mismatch,
    malformed, control-characters, comment, rsa-size, rsa-exponent, weak.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
