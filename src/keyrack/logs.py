"""Loggers of structlog that load it with their first line, which most commands never write; must configure nothing."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any, cast

_LEFT_OUT = "rich"
"""What structlog loads where somebody installed it, for tracebacks in colour that nothing of ours writes: 5 MB."""


def load() -> ModuleType:
    """structlog itself."""
    if "structlog" not in sys.modules and _LEFT_OUT not in sys.modules:
        # What stands here as None cannot be imported.
        sys.modules[_LEFT_OUT] = cast(ModuleType, None)
        try:
            importlib.import_module("structlog")
        finally:
            del sys.modules[_LEFT_OUT]
    return importlib.import_module("structlog")


class Logger:
    """Where lines go that belong to `name`; each takes what happened, and values that tell more."""

    def __init__(self, name: str) -> None:
        self._name = name

    def info(self, event: str, **values: Any) -> None:
        """What is good to know later."""
        self._structlog().info(event, **values)

    def warning(self, event: str, **values: Any) -> None:
        """What somebody should look at some day."""
        self._structlog().warning(event, **values)

    def error(self, event: str, **values: Any) -> None:
        """What somebody must look at."""
        self._structlog().error(event, **values)

    def exception(self, event: str, **values: Any) -> None:
        """The same, with the exception that is being handled."""
        self._structlog().exception(event, **values)

    def _structlog(self) -> Any:
        return load().get_logger(self._name)


def logger(name: str) -> Logger:
    """The logger of that name, such as `keyrack.web`."""
    return Logger(name)
