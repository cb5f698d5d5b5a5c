"""Improvement, epoch by epoch: undone beyond the trust region, and the best policy kept."""

import math
import time
from collections.abc import Iterator
from copy import deepcopy

from torch import nn

from reweigh.core.returns import reward_to_go
from reweigh.learning.config import EpochProgress, LearnConfig
from reweigh.learning.critic import ValueFunction, fitted_critic, unit_of
from reweigh.learning.division import Division
from reweigh.learning.improvement import (
    Gain,
    expected_doubts,
    gain,
    least,
    predicted_bound,
    within_a_sentence,
)
from reweigh.learning.learner import Distance, LearningPolicy, Objective, learn_pass, measure

_HALVINGS = 3
_FASTER, _SLOWER = 4.0, 0.5
_HIGHEST_RATE = 0.1
_OPTION = {"ess": "min_episode_ess", "kl": "max_kl_from_behaviour"}


class Search:
    """The best policy so far, by what the validation episodes say of it.

    Better is what promises the higher lower bound of the improvement on the test episodes, as long
    as its weights raise no doubt. What it begins with promises 0.

    Attributes:
        candidate: the best policy; None as long as none is better than the behaviour.
        critic: the behaviour's value function, if the estimator takes one.
        began: how far the policy was from the behaviour at first.
    """

    def __init__(
        self,
        policy: nn.Module,
        division: Division,
        test: int,
        config: LearnConfig,
        objective: Objective,
    ):
        """A search that begins with a policy.

        Args:
            policy: Where to begin; it is not changed.
            division: The episodes; those of the test are not looked at.
            test: How many these are.
            config: Options.
            objective: What is maximised.

        Raises:
            ValueError: The policy is of another space, has nothing to learn, or is beyond the trust
                region.
        """
        self.division, self.test, self.config, self.objective = division, test, config, objective
        self.candidate: nn.Module | None = None
        self.deviation = self._deviation()
        self.best_bound = 0.0
        self.highest_bound, self.rose, self.halved = -math.inf, 0, 0
        self.refused_bound, self.refusal = 0.0, ""
        self.stood, self.limits = 0, set[str]()
        self.began = self.here = self._measure(policy)
        self._require_inside()
        self.critic = self._fitted_critic() if objective.needs_values else None
        self.learner = LearningPolicy.create(deepcopy(policy))
        self.good = deepcopy(self.learner)
        self.clock = time.perf_counter()

    def epochs(self) -> Iterator[EpochProgress]:
        """Improves until patience or the trust region ends it, or the epochs are over."""
        for number in range(1, self.config.epochs + 1):
            yield self._epoch(number)
            if self.halved == _HALVINGS or number - self.rose >= self.config.patience:
                return

    @property
    def why_nothing(self) -> str:
        """Why there is no candidate."""
        options = " and ".join(f"{x} is {getattr(self.config, x)}" for x in sorted(self.limits))
        if not self.stood:
            return (
                f"every epoch went beyond the trust region and was undone: {options}, which leaves "
                "no room to learn in"
            )
        if self.refusal:
            return self.refusal
        better = "nothing that was learnt was better on the validation episodes"
        if self.halved == _HALVINGS:
            return f"{better} before the trust region ended it: {options}"
        return better

    def _require_inside(self) -> None:
        """Requires a policy to begin with inside the trust region.

        Raises:
            ValueError: It is, or the trust region has no room for any policy.
        """
        if (broken := self.began.broken(self.config)) is None:
            return
        position = (
            f"the weights of the episodes to learn from have an effective sample size of "
            f"{100 * self.began.ess:.6g} % and a divergence of {self.began.kl:.3g} nats per step"
        )
        if self.began.broken(LearnConfig()) is None:
            option = _OPTION[broken]
            raise ValueError(
                f"{option} is {getattr(self.config, option)}, which leaves no room: with the "
                f"policy to begin with, {position}; the default is {getattr(LearnConfig(), option)}"
            )
        raise ValueError(
            f"the policy to begin with is beyond the trust region ({broken}): {position}, so it is "
            "far from what sampled the log; begin with the policy that did, or give none, and it "
            "is estimated"
        )

    def _epoch(self, number: int) -> EpochProgress:
        objective = self._pass(number)
        there = self._measure(self.learner.policy)
        undone = there.broken(self.config)
        outcome, best = None, False
        if undone is not None:
            self.limits.add(_OPTION[undone])
            self._undo()
        else:
            self.stood += 1
            outcome = self._gain()
            best = self._choose(number, outcome, there)
            self._keep_pace(there)
        return EpochProgress(
            epoch=number,
            objective=objective,
            ess=there.ess,
            kl=there.kl,
            undone=undone,
            improvement=None if outcome is None else outcome.estimate.value,
            predicted_bound=None
            if outcome is None
            else predicted_bound(outcome.estimate, self.test),
            best=best,
            seconds=time.perf_counter() - self.clock,
        )

    def _undo(self) -> None:
        """Goes back to before the epoch, and on from there at half the step."""
        rate = self.learner.rate / 2
        self.learner = deepcopy(self.good)
        self.learner.rate = rate
        self.halved += 1

    def _keep_pace(self, there: Distance) -> None:
        """Chooses the next epoch's step by how far this one came, and keeps where it ended."""
        way = there.travelled(self.config) - self.here.travelled(self.config)
        if way > 0:
            factor = min(max(self.config.pace / way, _SLOWER), _FASTER)
            self.learner.rate = min(self.learner.rate * factor, _HIGHEST_RATE)
        self.here, self.halved = there, 0
        self.good = deepcopy(self.learner)

    def _choose(self, number: int, outcome: Gain, there: Distance) -> bool:
        """Whether this is the best policy so far; it is kept if so."""
        bound = predicted_bound(outcome.estimate, self.test)
        if bound > self.highest_bound:  # patience is for what does not even come closer
            self.highest_bound, self.rose = bound, number
        if not bound > self.best_bound:
            return False
        refusal = self._refusal(number, outcome, there)
        if refusal is not None:
            if bound > self.refused_bound:
                self.refused_bound, self.refusal = bound, refusal
            return False
        self.best_bound = bound
        self.candidate = deepcopy(self.learner.policy)
        return True

    def _refusal(self, number: int, outcome: Gain, there: Distance) -> str | None:
        """Why a policy that promises something is not tested, or None."""
        words = (
            f"what looked best on the validation episodes, {outcome.estimate.value:+.4g} in epoch "
            f"{number}, was not tested"
        )
        doubts = expected_doubts(outcome.weights, self.test)
        doubts = doubts or expected_doubts(there.trajectories, self.test)
        if doubts:
            return (
                f"{words}: with weights like its own the {self.test} test episodes, less a third "
                f"as a margin, would not be believed, since {within_a_sentence(doubts[0])}"
            )
        enough = least(outcome, self.test, level=self.config.level)
        if not outcome.estimate.value > enough:
            return (
                f"{words}: {self.test} test episodes show no improvement below {enough:.2g}, which "
                "what has not happened in any of them may account for"
            )
        return None

    def _gain(self) -> Gain:
        return gain(
            self.division.validation,
            self.learner.policy,
            self.critic,
            discount=self.config.discount,
            level=self.config.level,
        )

    def _measure(self, policy: nn.Module) -> Distance:
        return measure(
            self.division.training, policy, self.objective, discount=self.config.discount
        )

    def _pass(self, number: int) -> float:
        return learn_pass(
            self.learner,
            self.division.training,
            self.objective,
            self.critic,
            discount=self.config.discount,
            unit=1.0 if self.objective.of_steps else self.deviation,
            count=self.config.minibatches,
            seed=(self.config.seed, number),
        )

    def _deviation(self) -> float:
        """The deviation of the first returns."""
        first = next(self.division.training.batches())
        rewards = reward_to_go(first.rewards, first.segments, discount=self.config.discount)
        returns = rewards[first.segments.is_first]
        return unit_of(returns, size=float(returns.abs().max()))

    def _fitted_critic(self) -> ValueFunction:
        return fitted_critic(
            self.division.training,
            self.division.validation,
            discount=self.config.discount,
            hidden=self.config.hidden,
            seed=self.config.seed,
        )
