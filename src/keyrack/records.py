"""`dataclass` as the standard library's, but a frozen one with slots gets its methods when the first is used; must hold
nothing that is not in `dataclasses`.

To write and compile the methods of a dataclass takes half a millisecond, and of the hundreds that a command or a
service loads, it uses some: it was a fifth of a short command's time. `dataclasses` itself makes them here too, of a
twin of the class that has no slots.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:

    def dataclass(cls: type | None = None, /, **options: bool) -> Any:
        """As `dataclasses.dataclass`."""

        def made(plain: type) -> type:
            # What inherits, or says in its annotations more than what its fields are, is left to the library.
            says_more = any(word in str(text) for text in plain.__annotations__.values() for word in _NO_FIELDS)
            if options != {"frozen": True, "slots": True} or plain.__bases__ != (object,) or says_more:
                return dataclasses.dataclass(**options)(plain)
            return _with_slots(plain)

        return made if cls is None else made(cls)


_finishing = threading.RLock()
_NO_FIELDS = ("ClassVar", "InitVar", "KW_ONLY")
_METHODS = ("__init__", "__repr__", "__eq__", "__hash__")
_FACTS = ("__dataclass_fields__", "__dataclass_params__", "__match_args__")


def _with_slots(plain: type) -> type:
    """The class with slots, frozen, which has its other methods made when one of them is used."""
    names = tuple(plain.__annotations__)
    members = {name: value for name, value in plain.__dict__.items() if name not in (*names, "__dict__", "__weakref__")}
    own = set(members)

    def finish() -> type:
        with _finishing:
            if "__dataclass_fields__" not in plain.__dict__:  # as another thread was first
                dataclasses.dataclass(frozen=True)(plain)
                for name in (*_METHODS, *_FACTS):
                    setattr(slotted, name, plain.__dict__[name])
        return slotted

    members |= {"__slots__": names, "__setattr__": _refuse_to_set, "__delattr__": _refuse_to_delete}
    members |= {"__getstate__": _state, "__setstate__": _set_state}
    members |= {name: _later(name, finish) for name in _METHODS if members.get(name) is None}
    members |= {name: _Fact(name, finish) for name in _FACTS if name not in own}
    slotted = type(plain.__name__, (object,), members)
    slotted.__qualname__ = plain.__qualname__
    return slotted


def _later(name: str, finish: Callable[[], type]) -> Callable[..., Any]:
    """A method that has the methods of its class made, and then is the one that was made."""

    def method(self: Any, *given: Any, **named: Any) -> Any:
        return getattr(finish(), name)(self, *given, **named)

    return method


class _Fact:
    """What `dataclasses` writes down of a class, there once somebody asks for it."""

    def __init__(self, name: str, finish: Callable[[], type]) -> None:
        self._name, self._finish = name, finish

    def __get__(self, instance: object, owner: type) -> Any:
        return getattr(self._finish(), self._name)


def _refuse_to_set(self: object, name: str, value: object) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def _refuse_to_delete(self: object, name: str) -> None:
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


def _state(self: Any) -> list[Any]:
    return [getattr(self, name) for name in self.__slots__]


def _set_state(self: Any, state: list[Any]) -> None:
    for name, value in zip(self.__slots__, state, strict=True):
        object.__setattr__(self, name, value)
