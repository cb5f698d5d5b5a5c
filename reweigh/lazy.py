"""Names of a package that are imported when they are first used (PEP 562)."""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def imported(source: str) -> Any:
    """The object at `module:name`, or the module at `module`."""
    module, _, name = source.partition(":")
    return getattr(import_module(module), name) if name else import_module(module)


def lazy_names(
    package: str, sources: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The functions `__getattr__` and `__dir__` of a package.

    Args:
        package: The package's name, `__name__` in its file.
        sources: Where each of its names comes from, as `imported` takes it.
    """

    def getattr_(name: str) -> Any:
        if name not in sources:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = imported(sources[name])
        setattr(sys.modules[package], name, value)  # the next use does not come here
        return value

    def dir_() -> list[str]:
        return sorted({*vars(sys.modules[package]), *sources})

    return getattr_, dir_
