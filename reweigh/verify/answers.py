"""Episodes in plain Python numbers, for formulas that share nothing with the library."""

import math
from dataclasses import dataclass

from reweigh.verify.cases import Case


@dataclass(frozen=True)
class Answer:
    """An episode in plain numbers, one for each step."""

    target: list[float]
    behaviour: list[float]
    proximal: list[float]
    advantages: list[float]
    rewards: list[float]
    values: list[float]
    total: float
    """The return."""

    @property
    def ratios(self) -> list[float]:
        """`ρ_t`."""
        return [math.exp(a - b) for a, b in zip(self.target, self.behaviour, strict=True)]


def answers(case: Case) -> list[Answer]:
    """The episodes of a case in plain numbers."""
    behaviour = case.sample.log_prob_behaviour
    assert behaviour is not None
    columns = [
        x.detach().tolist()
        for x in (
            *(case.sample.log_prob_target, behaviour, case.log_prob_proximal),
            *(case.advantages, case.sample.require_rewards(), case.values),
        )
    ]
    totals, rows = case.sample.returns.tolist(), []
    for episode in range(len(case.sample)):
        first, last = int(case.segments.start[episode]), int(case.segments.stop[episode])
        existing = [i for i in range(first, last) if bool(case.segments.inside[i])]
        target, behaviour, proximal, advantages, rewards, values = (
            [x[i] for i in existing] for x in columns
        )
        rows.append(
            Answer(target, behaviour, proximal, advantages, rewards, values, totals[episode])
        )
    return rows
