"""What settings take from the environment, from TOML and from a caller, and what they refuse, without what was sent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from keyrack.settings import FIELDS, Settings, SettingsError

_ADDRESS = "the address that programs call, for example https://keys.example.org"


def each(name: str, then: object, *said: Any) -> list[tuple[str, Any, object]]:
    """A case for each of what is said of a setting."""
    return [(name, one, then) for one in said]


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in FIELDS:
        monkeypatch.delenv(f"KEYRACK_{name.upper()}", raising=False)


@pytest.mark.parametrize(
    ("name", "said", "kept"),
    [
        *each("workers", 5, "5", " 5 ", "+5", "5.0", 5.0, 5),
        ("rate_limit", "1_000", 1000),
        *each("notice_hours", 0.5, "0.5", " .5 ", 0.5),
        ("temporary_hours", 3, 3.0),
        *each("require_key", True, "1", "TRUE", "Yes", "on", "t", 1, True),
        *each("public_keys", False, "0", "False", "no", "OFF", "n", 0, False),
        ("log_format", "json", "json"),
        ("key_types", '["ssh-rsa"]', ("ssh-rsa",)),
        ("audit_checkpoint_file", "last", Path("last")),
        ("listen", "::1:80", "[::1]:80"),
    ],
)
def test_settings_are_read_from_environment_and_arguments(
    monkeypatch: pytest.MonkeyPatch, name: str, said: Any, kept: object
) -> None:
    if isinstance(said, str):
        monkeypatch.setenv(f"KEYRACK_{name.upper()}", said)
        found = getattr(Settings(), name)
    else:
        found = getattr(Settings(**{name: said}), name)
    assert (found, type(found)) == (kept, type(kept))


@pytest.mark.parametrize(
    ("name", "said", "words"),
    [
        *each("workers", "a whole number, at least 1 and at most 64", "0", 65, "x", "5.5", "1e1", "٥", []),
        ("max_user_keys", float("inf"), "a whole number, at least 1"),
        ("max_user_keys", 1e30, "a whole number, at least 1"),
        *each("token_hours", "a number, more than 0 and at most 720", 0, "nan", "inf", "", None),
        *each("require_key", "true or false", "maybe", " true ", 2, [], ""),
        ("oidc_client_secret", 5, "text"),
        ("log_format", "xml", "text or json"),
        *each("public_url", _ADDRESS, "https://example.org?", "https://example.org/#"),
        ("key_types", [5], "a list of texts"),
    ],
)
def test_an_invalid_setting_is_refused(name: str, said: object, words: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings(**{name: said})
    assert str(refused.value) == f"{name}: it takes {words}"


def test_arguments_override_the_environment_and_that_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "keyrack.toml").write_text('workers = 2\nrate_limit = 20\nkey_types = ["ssh-rsa"]\n')
    monkeypatch.setenv("KEYRACK_WORKERS", "3")
    monkeypatch.setenv("KEYRACK_RATE_LIMIT", "30")
    found = Settings(data=tmp_path, workers=4)
    assert (found.workers, found.rate_limit, found.key_types) == (4, 30, ("ssh-rsa",))
    # What is made of one is that one but for what is named, whatever the environment says by then.
    monkeypatch.setenv("KEYRACK_RATE_LIMIT", "31")
    other = replace(found, workers=5)
    assert (other.workers, other.rate_limit) == (5, 30)
    assert replace(other, workers=4) == found


def test_a_secret_is_not_shown() -> None:
    assert "hush" not in repr(Settings(oidc_client_secret="hush"))
