"""The methods that `evaluate` asks: every value recipe, and the estimators that model states.

A method is a `ValueRecipe` or a function of `Logged` to `Terms`. A recipe is given what it needs
beside the sample: a critic's values, fitted to the other episodes, or the log-probabilities under
every policy that sampled.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from reweigh import recipes
from reweigh.acting.stored import stored_policy
from reweigh.core.terms import Terms
from reweigh.data.batch import Batch
from reweigh.data.log import TrajectoryLog
from reweigh.data.policies import PolicyStore
from reweigh.data.trajectories import Trajectories
from reweigh.evaluation.critics import Critic, cross_fitted, fitted_q
from reweigh.evaluation.logged import Logged
from reweigh.evaluation.policies import log_prob
from reweigh.evaluation.resampling import refit
from reweigh.evaluation.state_marginal import kernel_marginal, linear_marginal, tabular_marginal
from reweigh.recipes import ValueRecipe

Estimator = Callable[[Logged], Terms]
"""Makes the terms of an estimate from logged episodes."""

CRITIC = ("values", "action_values")
"""Inputs of a recipe that corrects a critic."""
SOURCES = ("log_prob_sources", "proportions")
"""Inputs of a recipe that weighs against all policies that sampled."""

_TOLERANCE = 0.01


def direct_method(log: Logged, *, critic: Critic = fitted_q, groups: int = 20) -> Terms:
    """The critic's own estimate: `(1/N) Σ_i V̂_0(s_i0)`, no weights.

    Consistent if the critic is. Its variance does not grow with the horizon, and its bias, which
    the standard error does not show, is the critic's.

    Args:
        log: The episodes; the behaviour's log-probabilities are not read.
        critic: Fitted to all episodes, and again without each group of them.
        groups: Of the jackknife, `resampling.refit`.

    Returns:
        Terms. With `tabular_critic` their mean is the target's value in the counted model.

    Raises:
        ValueError: Those of the critic.
    """

    def value(part: Logged) -> Tensor:
        return critic(part, part.first_steps()).values.sum() / len(part)

    return refit(value, log, groups=groups)


def with_critic(recipe: ValueRecipe, *, critic: Critic = fitted_q, folds: int = 5) -> Estimator:
    """A recipe with values and action values of a critic that is fitted to the other episodes.

    Args:
        recipe: Such as `recipes.doubly_robust`.
        critic: Fitted to some episodes, gives values for others (`cross_fitted`).
        folds: Parts of the episodes that it is fitted without in turn.

    Returns:
        An estimator. It refuses a single episode and what the critic refuses.
    """

    def estimator(log: Logged) -> Terms:
        _ = log.sample.log_ratios  # refused before anything is fitted, if they are missing
        return recipe.terms(log.sample, *cross_fitted(critic, log, folds=folds))

    return estimator


def with_sources(
    recipe: ValueRecipe, sources: Sequence[nn.Module] | Mapping[int, nn.Module]
) -> Estimator:
    """A recipe with the log-probabilities under every policy that sampled whole episodes.

    Args:
        recipe: Such as `recipes.balance_heuristic`.
        sources: The policies by the version that the log gives; a sequence is numbered from 0.

    Returns:
        An estimator. Proportions are counted in the episodes. It refuses a log in which the version
        changes within an episode, a version without a policy, and a policy that does not have the
        log-probabilities that were recorded.
    """
    policies = dict(enumerate(sources)) if isinstance(sources, Sequence) else dict(sources)

    def estimator(log: Logged) -> Terms:
        version = _version_by_episode(log.batch)
        if missing := sorted(set(version.tolist()) - set(policies)):
            raise ValueError(
                f"episodes were sampled by policies {missing}, and sources holds "
                f"{sorted(policies)}: give the policy of every version that sampled"
            )
        log_probs = torch.stack([log_prob(policy, log.batch) for policy in policies.values()])
        is_source = torch.stack([version == key for key in policies])
        _require_recorded(log_probs, is_source, list(policies), log.batch)
        return recipe.terms(log.sample, log_probs, is_source.double().mean(1))

    return estimator


def takes_parts(method: ValueRecipe | Estimator) -> bool:
    """Whether a part of the log is enough for the terms of the part."""
    return isinstance(method, ValueRecipe) and method.by_parts and not method.inputs


MODELS: Mapping[str, Estimator] = {
    f.__name__: f for f in (direct_method, tabular_marginal, linear_marginal, kernel_marginal)
}
"""Estimators that model states."""

BY_PARTS: Mapping[str, ValueRecipe | Estimator] = {
    name: recipe for name, recipe in recipes.VALUES.items() if takes_parts(recipe)
}
"""Methods for logs of any size."""

ON_THE_WHOLE: Mapping[str, ValueRecipe | Estimator] = {
    **{
        name: recipe
        for name, recipe in recipes.VALUES.items()
        if not takes_parts(recipe) and recipe.inputs in ((), CRITIC)
    },
    **MODELS,
}
"""Methods that fit something to all episodes, and so hold the log in memory."""


def mixtures(log: Trajectories | TrajectoryLog) -> Mapping[str, Estimator]:
    """Methods that weigh against every policy that sampled, if all lie beside the log.

    Args:
        log: A run's log has them; trajectories in memory have none.
    """
    if isinstance(log, Trajectories):
        return {}
    store = PolicyStore(log.path.parent / "policies")
    versions = log.summary().steps_by_policy
    if not set(versions) <= set(store.versions()):
        return {}

    def beside_the_log(recipe: ValueRecipe) -> Estimator:
        # Loaded when asked, so that a policy of unknown kind stops this method alone.
        return lambda part: with_sources(recipe, {v: stored_policy(store, v) for v in versions})(
            part
        )

    return {
        name: beside_the_log(recipe)
        for name, recipe in recipes.VALUES.items()
        if recipe.inputs == SOURCES
    }


def estimator_of(method: ValueRecipe | Estimator) -> Estimator:
    """The function of a log's episodes that a method is.

    Raises:
        ValueError: A recipe needs what a log does not have.
    """
    if not isinstance(method, ValueRecipe):
        return method
    if method.inputs == ():
        return lambda log: method.terms(log.sample)
    if method.inputs == CRITIC:
        return with_critic(method)
    raise ValueError(
        f"{method.name} needs {', '.join(method.inputs)}, which a log does not have: pass a "
        "function of Logged that computes them, such as evaluation.methods.with_sources makes"
    )


def _version_by_episode(batch: Batch) -> Tensor:
    """The version that sampled each episode, `[N]`."""
    segments, version = batch.segments, batch.policy_version
    first = segments.total(version.masked_fill(~segments.is_first, 0))
    changed = segments.inside & (version != segments.spread(first))
    if bool(changed.any()):
        step = int(changed.nonzero()[0])
        episode = int(segments.episode[step])
        raise ValueError(
            f"in episode {int(batch.episode[episode])} policy {int(version[step])} took over from "
            f"policy {int(first[episode])} at step {int(segments.time[step])}: no single policy "
            "sampled it, and a mixture of whole policies does not hold; use per_decision, whose "
            "ratios are to the policy of each step"
        )
    return first


def _require_recorded(
    log_probs: Tensor, is_source: Tensor, versions: list[int], batch: Batch
) -> None:
    """Requires sources whose log-probabilities of their own actions are those recorded."""
    segments, recorded = batch.segments, batch.log_prob_behaviour
    own = is_source[:, segments.episode] & segments.inside & recorded.isfinite()
    off = own & ~((log_probs - recorded).abs() <= _TOLERANCE * (1 + recorded.abs()))
    if bool(off.any()):
        j, step = off.nonzero()[0].tolist()
        episode = int(batch.episode[segments.episode[step]])
        raise ValueError(
            f"source {versions[j]} gives log-probability {float(log_probs[j, step]):g} to the "
            f"action of episode {episode}, step {int(segments.time[step])}, and the log holds "
            f"{float(recorded[step]):g}: it is not the policy that sampled it, unless what the log "
            "holds was estimated; import it without log-probabilities then"
        )
