"""Results as JSON that every reader takes."""

import json
import math
from collections.abc import Mapping
from typing import Any


def as_json(content: Any) -> str:
    """Return numbers, texts, sequences and mappings as strict JSON; a named tuple is a mapping.

    Numbers that JSON does not have, NaN and the infinities, are null.
    """
    return json.dumps(_finite(content), indent=2, allow_nan=False)


def _finite(content: Any) -> Any:
    if (named := getattr(content, "_asdict", None)) is not None:
        content = named()
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
