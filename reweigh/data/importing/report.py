"""What an import brought, in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reweigh.data.schema import MISSING, ArraySpec, TrajectorySchema

WITHOUT_LOG_PROBS = (
    "The probabilities with which the actions were taken are not in the source. No importance "
    "weight exists without them, and none is made up: what weights steps will refuse this log. "
    "The value of the policy that acted is its mean return, which needs none. For more, name the "
    "column that holds them (--log-prob-behaviour, --probabilities), or have them estimated from "
    "the actions (--estimate-behaviour)."
)


@dataclass(frozen=True)
class ImportReport:
    """What `import_log` made of a source; `str` of it is for a person to read."""

    log: Path
    format: str
    """What the source was, in words."""
    schema: TrajectorySchema
    episodes: int
    steps: int
    terminated: int
    """Episodes that ended in a terminal state."""
    truncated: int
    """Episodes that were cut from outside."""
    columns: Mapping[str, tuple[str, ...]]
    """Which column was read as what, where that had to be found out."""
    unread: tuple[str, ...]
    """Columns that nothing was made of."""
    notes: tuple[str, ...]
    """What else should be known, a sentence or two each."""

    def __str__(self) -> str:
        kind = "discrete" if self.schema.discrete_actions else "continuous"
        lines = [
            f"{self.log}: {self.steps:,} steps in {self.episodes:,} episodes of "
            f"{self.schema.environment} ({self.terminated:,} terminated, {self.truncated:,} "
            f"truncated), from {self.format}",
            f"observations {_entry(self.schema.observation)}, {kind} actions "
            f"{_entry(self.schema.action)}, log-probabilities {self.schema.behaviour}",
        ]
        if self.columns:
            read = [f"{role} from {', '.join(names)}" for role, names in self.columns.items()]
            lines.append("; ".join(read))
        if self.unread:
            lines.append(f"not read: {', '.join(self.unread)}")
        return "\n".join([*lines, *self.notes])


def _entry(spec: ArraySpec) -> str:
    """One entry in a few words."""
    choices = f" ({' x '.join(map(str, spec.choices))} choices)" if spec.choices else ""
    return f"{spec}{choices}"


def behaviour_notes(schema: TrajectorySchema) -> tuple[str, ...]:
    """What can and cannot be done with a log whose log-probs are missing or estimated."""
    if schema.behaviour == MISSING:
        return (WITHOUT_LOG_PROBS,)
    if schema.estimated:
        return (
            f"The log-probabilities are estimates ({schema.behaviour}): what is weighted by them "
            "inherits their errors, and the log says so to whoever opens it.",
        )
    return ()
