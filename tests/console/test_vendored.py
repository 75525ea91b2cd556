"""What others wrote and we serve is what they published, with its licence."""

from __future__ import annotations

import hashlib

import pytest

from keyrack.web.console.templates import FOLDER, static_files

# SHA-256 of the files in the package of npm's registry: htmx.org 2.0.11 (0BSD).
VENDORED = {
    "htmx.min.js": "d6fdc75f204e6bdefa99b69bf1e6d4ac69b8a364f77929f45c13476b4000f717",
    "htmx.LICENSE.txt": "d3d2456f76414f2456104660ebd65aff1c04cd7966b942bdabd63f3cdb316a38",
}


@pytest.mark.parametrize("name", list(VENDORED))
def test_a_vendored_file_is_as_published(name: str) -> None:
    assert hashlib.sha256(FOLDER.joinpath("static", name).read_bytes()).hexdigest() == VENDORED[name]


def test_each_vendored_script_has_its_licence() -> None:
    for name in VENDORED:
        if name.endswith(".js"):
            assert f"{name.partition('.')[0]}.LICENSE.txt" in VENDORED


def test_the_consoles_scripts_are_small_and_load_nothing_from_elsewhere() -> None:
    for name in static_files():
        if name in VENDORED:
            continue
        text = FOLDER.joinpath("static", name).read_text("utf-8")
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text
        assert "eval(" not in text
        assert "innerHTML" not in text
