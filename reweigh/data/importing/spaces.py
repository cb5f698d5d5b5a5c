"""Gymnasium's spaces as Minari writes them, in JSON: what their entries are."""

import json
from collections.abc import Mapping
from types import NoneType
from typing import Any

import numpy as np

from reweigh.data.schema import ArraySpec

Space = Mapping[str, Any]
"""A space as Minari's metadata says it: its type, and what that type has."""

_FLATTEN = (
    "name the parts that the policy sees by --observations, and they are laid end to end; or "
    "record with gymnasium.wrappers.FlattenObservation"
)


Kinds = Mapping[str, tuple[type, ...]]
"""The types that entries of JSON may have, by their names."""

_ENTRIES: Mapping[str, Kinds] = {
    "Box": {"dtype": (str,), "shape": (list,)},
    "Discrete": {"n": (int,), "start": (int, NoneType)},
    "MultiDiscrete": {"nvec": (list,), "start": (list, NoneType)},
    "MultiBinary": {"n": (int, list)},
    "Dict": {"subspaces": (dict,)},
    "Tuple": {"subspaces": (list,)},
}


def lack(values: object, kinds: Kinds) -> str:
    """What JSON lacks to be an object with these entries; "" if nothing."""
    if not isinstance(values, dict):
        return f"it is {str(values)[:40]!r}, no object"
    for name, types in kinds.items():
        if name not in values and NoneType not in types:
            return f"{name!r} is missing"
        if not isinstance(values.get(name), types):
            return f"{name!r} is {str(values[name])[:40]!r}"
    return ""


def read_space(text: str, role: str) -> Space:
    """A space out of its JSON.

    Raises:
        ValueError: it is none.
    """
    space = json.loads(text)
    if flaw := _flaw(space):
        raise ValueError(f"of {role}, {flaw}")
    return space


def _flaw(space: Any) -> str:
    flaw = lack(space, {"type": (str,)}) or lack(space, _ENTRIES.get(space["type"], {}))
    if flaw:
        return flaw
    if "subspaces" in space:
        parts = space["subspaces"]
        return next(
            filter(None, map(_flaw, parts.values() if isinstance(parts, dict) else parts)), ""
        )
    for name in ("shape", "nvec", "n", "start"):
        if space.get(name) is not None and not _whole(space[name]):
            return f"{name!r} is {str(space[name])[:40]!r}, no whole numbers"
    return ""


def _whole(numbers: object) -> bool:
    if isinstance(numbers, list):
        return all(map(_whole, numbers))
    return isinstance(numbers, int)


def observation_parts(space: Space, chosen: tuple[str, ...]) -> dict[str, Space]:
    """The spaces that make up an observation: the space itself, under "", or parts of a dict.

    Raises:
        ValueError: a dict of which no parts were chosen, or a part that is not there.
    """
    if space["type"] not in ("Dict", "Tuple"):
        if chosen:
            raise ValueError(
                f"observations is {', '.join(chosen)}, but the dataset's observations have no "
                "parts. Leave it out."
            )
        return {"": space}
    if space["type"] == "Tuple":
        leaves = {f"_index_{i}": part for i, part in enumerate(space["subspaces"])}
    else:
        leaves = dict(space["subspaces"])
    if not chosen:
        raise ValueError(
            f"The observations have parts: {', '.join(leaves)}. A log keeps one array: {_FLATTEN}."
        )
    missing = [name for name in chosen if name not in leaves]
    if missing:
        raise ValueError(f"Observations have no part {missing[0]!r}: {', '.join(leaves)}.")
    return {name: leaves[name] for name in chosen}


def observation_spec(parts: Mapping[str, Space]) -> ArraySpec:
    """One observation: the space's entry, or the parts' numbers end to end.

    Raises:
        ValueError: a space whose entries are no arrays.
    """
    specs = [spec_of(space, "observations") for space in parts.values()]
    if len(specs) == 1:
        return specs[0]
    dtype = np.result_type(*[np.dtype(spec.dtype) for spec in specs])
    return ArraySpec(str(dtype), (sum(spec.size for spec in specs),))


def spec_of(space: Space, role: str) -> ArraySpec:
    """One entry of a space, with its choices.

    Raises:
        ValueError: a space whose entries are no arrays.
    """
    kind = space["type"]
    if kind == "Box":
        return ArraySpec(space["dtype"], tuple(space["shape"]))
    if kind == "Discrete":
        return ArraySpec("int64", (), (int(space["n"]),))
    if kind == "MultiDiscrete":
        counts = np.asarray(space["nvec"])
        return ArraySpec("int64", counts.shape, tuple(counts.reshape(-1).tolist()))
    if kind == "MultiBinary":
        shape = tuple(np.atleast_1d(space["n"]).tolist())
        return ArraySpec("int64", shape, (2,) * int(np.prod(shape)))
    raise ValueError(
        f"The {role} are {kind}; a log keeps Box, Discrete, MultiDiscrete and MultiBinary."
    )


def first_choice(space: Space) -> np.ndarray | int:
    """The number of the first choice, where a space does not count from 0."""
    start = space.get("start", 0)
    return np.asarray(start) if isinstance(start, list) else int(start or 0)


def space_of(spec: ArraySpec) -> Space:
    """A space whose entries are those of a log; unbounded, since a log knows no bounds."""
    dtype = np.dtype(spec.dtype)
    if spec.choices and spec.shape == ():
        return {"type": "Discrete", "dtype": "int64", "start": 0, "n": spec.choices[0]}
    if spec.choices and dtype.kind in "iu":
        counts = np.reshape(spec.choices, spec.shape).tolist()
        start = np.zeros(spec.shape, dtype=int).tolist()
        return {"type": "MultiDiscrete", "dtype": spec.dtype, "nvec": counts, "start": start}
    if dtype.kind == "b":
        return {"type": "MultiBinary", "n": list(spec.shape or (1,))}
    low, high = -np.inf, np.inf
    if dtype.kind in "iu":
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return {
        "type": "Box",
        "dtype": spec.dtype,
        "shape": list(spec.shape),
        "low": np.full(spec.shape, low, dtype).tolist(),
        "high": np.full(spec.shape, high, dtype).tolist(),
    }
