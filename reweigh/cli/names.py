"""Names of estimators, intervals and other choices: `student_t`, which may be typed `student-t`."""

from collections.abc import Collection
from typing import Literal, get_args

from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo


def either_spelling() -> ConstructorRegistry:
    """A context in which `tyro.cli` takes choices with hyphens for underscores."""
    registry = ConstructorRegistry()
    registry.primitive_rule(_choice)
    return registry


def _choice(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """How tyro reads an option whose type is `Literal[...]` of strings; None for other types."""
    choices = get_args(info.type) if info.type_origin is Literal else ()
    if not any("_" in str(choice) for choice in choices):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="{" + ",".join(choices) + "}",
        instance_from_str=lambda words: _underscored(words[0]),
        is_instance=lambda value: value in choices,
        str_from_instance=lambda value: [value],
        choices=(*choices, *(c.replace("_", "-") for c in choices if "_" in c)),
    )


def known_names(given: Collection[str], known: Collection[str], what: str) -> list[str]:
    """Names as Python spells them.

    Args:
        given: As a user types them.
        known: The names that exist.
        what: What they name, for the message.

    Raises:
        ValueError: A name does not exist.
    """
    for name in given:
        if _underscored(name) not in known:
            raise ValueError(f"{name!r} is not {what}: there are {', '.join(sorted(known))}")
    return [_underscored(name) for name in given]


def _underscored(name: str) -> str:
    return name.replace("-", "_")
