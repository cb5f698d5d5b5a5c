"""The behaviour by counts: how often each action was taken after each observation."""

import json
import math

import numpy as np
import torch
from torch import nn

from reweigh.acting.policy import build
from reweigh.acting.tabular import TabularPolicy
from reweigh.behaviour.fitted import Correction, Fitted, Material
from reweigh.behaviour.survey import Survey, columns, is_integer

MOST_CELLS = 2_000_000
"""The most pairs of an observation and a choice that a table holds."""


def counts(material: Material, *, smoothing: float = 1.0) -> Fitted:
    """`π̂(a|s) = (n(s, a) + α) / (n(s) + α A)`: maximum likelihood, smoothed so that nothing is 0.

    Weights divide by it, and the mean of an inverse is more than the inverse of the mean. Where
    log-probabilities are taken from it, they are therefore `log (n(s, a) + α) / (n(s) + α)`: with
    α = 1, n(s, a) binomial with probability p, the mean inverse of that is
    `(1 - (1 - p)^(n + 1)) / p` (Chao and Strawderman 1972), so `1 / p` up to the
    pairs that were never seen. An observation that no other fold holds has even probabilities, and
    log 1 where weights divide. An action of several numbers is counted number by number, as if the
    numbers were independent.

    Args:
        material: A log whose observations are integers from 0, and whose actions are choices.
        smoothing: α. With 0 the policies are the frequencies, and an action that no other fold
            holds is refused.

    Returns:
        Policies of kind "tabular".

    Raises:
        ValueError: Observations or actions cannot be counted; a table of them is too large.
    """
    if not 0 <= smoothing < math.inf:
        raise ValueError(f"smoothing must be finite and not negative, got {smoothing}")
    sizes = _require_countable(material.survey)
    schema, choices = material.schema, material.survey.choices
    assert choices is not None, "countable"
    description = json.dumps(
        {
            "kind": "tabular",
            "observation_choices": list(sizes),
            "action_shape": list(schema.action.shape),
            "choices": list(choices),
        }
    )
    rows = build(description)
    assert isinstance(rows, TabularPolicy), "that is its kind"
    folds = material.folds
    times = np.zeros((folds.count, math.prod(sizes), sum(choices)), np.int64)
    for t in material.stream():
        state = rows.row(torch.tensor(t.observations)).numpy()
        where = (folds.of_steps(t)[:, None], state[:, None], columns(t.actions, choices))
        np.add.at(times, where, 1)
    total = times.sum(0)
    others = [*(total - own for own in times), total]
    policies = tuple(_table(description, n, choices, smoothing) for n in others)
    corrections = tuple(_correction(rows, n, choices, smoothing) for n in others[:-1])
    return Fitted(policies, description, "counts", corrections)


def observation_choices(survey: Survey) -> tuple[int, ...] | None:
    """Values of each number of an observation: as the log declares, or as occur in it.

    Returns:
        None if the observations are not integers that count from 0.
    """
    observation = survey.schema.observation
    if observation.choices:
        return observation.choices
    if not is_integer(observation) or survey.highest is None or survey.negative is not None:
        return None
    return tuple(int(n) + 1 for n in survey.highest)


def cells(survey: Survey) -> int | None:
    """Size of the table for a log; None if its steps cannot be counted."""
    sizes = observation_choices(survey)
    if sizes is None or survey.choices is None:
        return None
    return math.prod(sizes) * sum(survey.choices)


def _require_countable(survey: Survey) -> tuple[int, ...]:
    schema, instead = survey.schema, "estimate the behaviour by `fit_network`"
    if survey.choices is None:
        raise ValueError(f"actions of {schema.action} are not choices to be counted: {instead}")
    sizes, number = observation_choices(survey), cells(survey)
    if sizes is None or number is None:
        where = "" if survey.negative is None else f" (it is negative in {survey.negative})"
        raise ValueError(
            f"an observation of {schema.observation} is no number of a state that counts from 0"
            f"{where}: {instead}, or number the states"
        )
    if number > MOST_CELLS:
        raise ValueError(
            f"a table of observations with {list(sizes)} values and actions with "
            f"{list(survey.choices)} would have {number} cells, and {MOST_CELLS} at most are "
            f"counted: {instead}"
        )
    return sizes


def _table(
    description: str, times: np.ndarray, choices: tuple[int, ...], smoothing: float
) -> nn.Module:
    """The policy of counts `[states, Σ choices]`."""
    policy = build(description)
    assert isinstance(policy, TabularPolicy), "that is its kind"
    parts = []
    for part in np.split(times, np.cumsum(choices)[:-1], axis=1):
        smoothed = part + smoothing
        smoothed[smoothed.sum(1) == 0] = 1.0  # no step in this state
        with np.errstate(divide="ignore"):
            parts.append(np.log(smoothed))
    with torch.no_grad():
        policy.logits.copy_(torch.from_numpy(np.concatenate(parts, axis=1)))
    return policy


def _correction(
    rows: TabularPolicy, times: np.ndarray, choices: tuple[int, ...], smoothing: float
) -> Correction:
    """The step from `(n(s, a) + α) / (n(s) + α A)` to `(n(s, a) + α) / (n(s) + α)`, in nats."""
    if smoothing == 0:
        return lambda observations: np.zeros(len(observations))
    seen = times[:, : choices[0]].sum(1)
    factors = [(seen + smoothing * n) / (seen + smoothing) for n in choices]
    nats = np.log(factors).sum(0)
    return lambda observations: nats[rows.row(torch.tensor(observations)).numpy()]
