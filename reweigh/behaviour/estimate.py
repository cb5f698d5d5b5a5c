"""The estimate of the policy that sampled a log."""

from dataclasses import dataclass, replace

import numpy as np
from torch import nn

from reweigh.behaviour.calibrating import calibrate
from reweigh.behaviour.calibration import Calibration
from reweigh.behaviour.fitted import Fitted, Material, Model, require_known
from reweigh.behaviour.networks import fit_network
from reweigh.behaviour.survey import at_once
from reweigh.behaviour.tables import MOST_CELLS, cells, counts
from reweigh.data.episodes import Episodes, Folds
from reweigh.data.schema import RECORDED, TrajectorySchema
from reweigh.data.trajectories import Trajectories


@dataclass(frozen=True, eq=False)
class EstimatedBehaviour:
    """An estimate of the behaviour policy, and how far to believe it."""

    description: str
    """The method in words, for `TrajectorySchema.behaviour`."""
    calibration: Calibration
    """How far the cross-fitted log-probabilities can be believed."""
    fitted: Fitted
    """The policies: policy k was fitted without the episodes of fold k."""
    folds: Folds
    """The folds of the episodes."""
    schema: TrajectorySchema
    """The log's schema."""

    @property
    def policy(self) -> nn.Module:
        """The policy fitted to all episodes, for learning to start from and to fall back on."""
        return self.fitted.policies[-1]

    @property
    def policy_description(self) -> str:
        """Description of `policy`, as `acting.policy.build` reads it."""
        return self.fitted.description

    def log_prob_behaviour(self, trajectories: Trajectories) -> np.ndarray:
        """Log-probability of each action by the policy that was fitted to other episodes.

        Args:
            trajectories: Fragments of the log, in any order.

        Returns:
            `[S]` float64, finite: what weights divide by, which `counts` corrects for its noise. It
            does not depend on what else is in `trajectories`.

        Raises:
            ValueError: An action or observation that the policy does not know; says where.
        """
        known = replace(trajectories, log_prob_behaviour=np.zeros(trajectories.steps))
        known.validate(replace(self.schema, behaviour=RECORDED))
        log_prob = np.full(trajectories.steps, np.nan)
        fold = self.folds.of_steps(trajectories)
        for first in range(0, trajectories.steps, at_once(self.schema)):
            steps = np.arange(first, min(first + at_once(self.schema), trajectories.steps))
            for k in np.unique(fold[steps]).tolist():
                mine = steps[fold[steps] == k]
                log_prob[mine] = self.fitted.log_prob(
                    k, trajectories.observations[mine], trajectories.actions[mine]
                )
        require_known(log_prob, ~np.isfinite(log_prob), trajectories)
        return log_prob


def estimate_behaviour(
    log: Episodes, *, model: Model | None = None, folds: int = 5, seed: int = 0
) -> EstimatedBehaviour:
    """An estimate of the policy that sampled a log, from observations and actions alone.

    Cross-fitted: each episode's log-probabilities come from a model of the other folds, so that
    no episode makes its own actions look likely (Chernozhukov et al. 2018, section 3).

    Args:
        log: Whole episodes, with or without log-probabilities. Memory does not grow with it.
        model: `counts`, `fit_network`, or either with options (`functools.partial`); by default
            `counts_where_possible`.
        folds: How many parts the episodes are divided into, by their numbers.
        seed: Decides the parts, and a network's first parameters and minibatches.

    Returns:
        The same estimate for the same log and seed.

    Raises:
        ValueError: The model is not for such a log; there are too few episodes.
    """
    material = Material.of(log, Folds(folds, seed))
    fitted = (counts_where_possible if model is None else model)(material)
    return EstimatedBehaviour(
        description=f"estimated by {fitted.words}, {folds}-fold cross-fitted",
        calibration=calibrate(material, fitted),
        fitted=fitted,
        folds=material.folds,
        schema=material.schema,
    )


def counts_where_possible(material: Material) -> Fitted:
    """`counts`, if a table has no more numbers than the log has steps; `fit_network` otherwise.

    A network whose input is the number of a state has as much to learn as a table, and takes
    hundreds of times as long.

    Raises:
        ValueError: See `counts` and `fit_network`.
    """
    number = cells(material.survey)
    if number is None or number > min(MOST_CELLS, material.survey.steps):
        return fit_network(material)
    return counts(material)
