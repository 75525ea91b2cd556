"""Dataclasses whose methods are made when the first is used behave as the library's own."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import FrozenInstanceError, asdict, field, replace
from typing import Any

import pytest

from keyrack.records import dataclass


@dataclass(frozen=True, slots=True)
class Late:
    """As ours are."""

    name: str
    number: int = 3
    parts: tuple[str, ...] = ()
    noted: dict[str, int] = field(default_factory=dict, compare=False)
    secret: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.number < 0:
            raise ValueError("below nothing")

    @property
    def twice(self) -> int:
        """A method of its own."""
        return 2 * self.number


@dataclasses.dataclass(frozen=True, slots=True)
class Own:
    """As the library makes them."""

    name: str
    number: int = 3
    parts: tuple[str, ...] = ()
    noted: dict[str, int] = field(default_factory=dict, compare=False)
    secret: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Shown:
    """Says for itself how it is shown."""

    name: str

    def __repr__(self) -> str:
        return "not told"


def fresh() -> Any:
    """A class of which nothing was used yet."""

    @dataclass(frozen=True, slots=True)
    class Fresh:
        name: str
        number: int = 3

    return Fresh


def test_is_as_the_librarys_own() -> None:
    late, own = Late("a", secret="x"), Own("a", secret="x")
    assert repr(late) == repr(own).replace("Own", "Late")
    assert asdict(late) == asdict(own)
    assert late == Late("a", secret="x") != Late("b", secret="x")
    assert hash(late) == hash(own)
    assert replace(late, number=4).twice == 8
    assert [one.name for one in dataclasses.fields(Late)] == [one.name for one in dataclasses.fields(Own)]
    assert Late.__match_args__ == Own.__match_args__
    assert pickle.loads(pickle.dumps(late)) == copy.deepcopy(late) == copy.copy(late) == late
    assert not hasattr(late, "__dict__")
    assert repr(Shown("a")) == "not told"
    match late:
        case Late(name, 3):
            assert name == "a"
        case _:
            raise AssertionError


def test_refuses_what_the_librarys_own_refuses() -> None:
    late = Late("a")
    for name in ("name", "another"):
        with pytest.raises(FrozenInstanceError):
            setattr(late, name, "b")
    with pytest.raises(FrozenInstanceError):
        del late.name
    with pytest.raises(TypeError, match=r"Late.__init__\(\) missing 1 required positional argument: 'name'"):
        Late()  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="below nothing"):
        Late("a", -1)


@pytest.mark.parametrize(
    "use",
    [
        lambda made: made("a"),
        lambda made: dataclasses.is_dataclass(made),
        lambda made: dataclasses.fields(made),
        lambda made: made.__match_args__,
    ],
)
def test_whatever_is_used_first_the_rest_is_there(use: Any) -> None:
    made = fresh()
    assert "__dataclass_fields__" in made.__dict__
    use(made)
    assert (made("a"), hash(made("a"))) == (made("a", 3), hash(made("a")))
    assert replace(made("a"), number=1) == made("a", 1)


def test_one_that_inherits_has_all_fields() -> None:
    @dataclass(frozen=True, slots=True)
    class Base:
        name: str
        number: int = 3

    @dataclass(frozen=True, slots=True)
    class Further(Base):
        last: str = ""

    assert repr(Further("a", 1, "z")).endswith("Further(name='a', number=1, last='z')")


def test_nothing_is_compiled_before_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[type] = []
    whole = dataclasses.dataclass

    def counted(**options: bool) -> Any:
        def decorated(cls: type) -> type:
            made.append(cls)
            return whole(**options)(cls)

        return decorated

    monkeypatch.setattr(dataclasses, "dataclass", counted)
    late = fresh()
    assert not made
    late("a")
    late("b")
    assert len(made) == 1


def test_threads_that_come_first_together_get_one_class() -> None:
    for _ in range(50):
        late = fresh()
        with ThreadPoolExecutor(4) as threads:
            assert list(threads.map(late, "abcd")) == [late(one, 3) for one in "abcd"]
