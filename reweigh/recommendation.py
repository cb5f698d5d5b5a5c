"""Which weight for this batch: the rule of docs/which-weight.md, applied and explained."""

import math
import textwrap
from dataclasses import dataclass

import torch
from torch import Tensor

from reweigh.core import diagnostics, weights
from reweigh.core.diagnostics import WeightReading
from reweigh.core.sample import Sample
from reweigh.core.segments import Segments
from reweigh.core.weights.psis import LEAST_COUNT
from reweigh.recipes import Recipe, actor_critic, scores, truncated, values

FRESH = 0.01
"""Prefix log-weights this small make every estimator the plain one."""
LEAST_ESS = 10.0
"""With a smaller effective sample size (and one below a tenth of the episodes), collect."""
LEAST_MEAN = 0.1
"""A smaller mean weight says that the target goes where the batch has not been."""
NEAR_STEP_ESS = 0.5
"""A share of the steps: below it, not even single ratios are close to 1."""
MANY = 100
"""Episodes from which on the noise of `step` weighs less than what truncation cuts off."""
STANDARD_ERRORS = 5.0


@dataclass(frozen=True)
class Recommendation:
    """Which estimator to use on a batch, and why; `print` it."""

    recipe: Recipe | None
    """To be called with the sample and its inputs; None for a batch without steps."""
    code: str
    """The same as Python: the call that computes `loss` from `rw`, `sample` and, by the names of
    the recipe's arguments, what else it takes."""
    maximum: float
    """Where prefix weights are truncated; infinity where they are not."""
    collect: bool
    """Whether so little can be learnt from the batch that fresh episodes are the better way."""
    reasons: tuple[str, ...]
    """Sentences with the numbers that decided."""
    would_change: tuple[str, ...]
    """Sentences that say what another answer takes."""
    warnings: tuple[str, ...]
    """Sentences about what seems wrong with the batch."""

    def __str__(self) -> str:
        """The answer and its reasons in words, then the code."""
        name = self.recipe.name if self.recipe else ""
        if self.maximum < math.inf:
            name = f"{name.removeprefix('truncated_')} truncated at {self.maximum:.4g}"
        headline = f"Use {name}"
        if self.collect:
            headline = f"Collect fresh episodes{f'; until then use {name}' if name else ''}"
        sentences = [*(f"Warning: {w}" for w in self.warnings), f"{headline}."]
        text = " ".join([*sentences, *self.reasons, *self.would_change])
        code = textwrap.indent(self.code, "    ")
        return "\n\n".join(filter(None, [textwrap.fill(text, 88), code]))


@torch.no_grad()
def recommend(sample: Sample, *, critic: bool = False) -> Recommendation:
    """An estimator of `∇J_γ(θ)` for a batch, by the rule of docs/which-weight.md.

    Per-decision weights, truncated at `√N / 2` (Ionides 2008 has `√N`) and no lower than 1; on
    what a critic of action values leaves unexplained, if there is one. Single ratios where prefix
    weights are spent or cannot be had. The rule was chosen for its root mean square error over
    random problems, which `benchmarks/which_weight.py` computes exactly.

    Args:
        sample: The batch. If several behaviours sampled it and their log-probabilities are known,
            `sample.against(log_prob_sources, proportions)`: weights are the mixture's then.
        critic: Whether there is a critic of action values.

    Returns:
        The recipe, its reasons in numbers, and code. On-policy, it is `reinforce`.

    Raises:
        ValueError: The behaviour's log-probabilities are unknown.
    """
    segments = sample.segments
    if segments.existing.numel() == 0:
        return Recommendation(None, "", math.inf, True, ("The batch holds no step.",), (), ())
    warnings = _step_warnings(sample.log_ratios, segments)
    if segments.has_fragments:
        return _for_fragments(critic, warnings)
    furthest = float(sample.log_prefix.abs().max())
    if furthest <= FRESH:
        return _on_policy(furthest, warnings)
    reading = diagnostics.read(diagnostics.episode_health(sample.log_prefix, segments)).total
    reasons = [*_ess_sentences(sample, reading), _tail_sentence(reading)]
    change = [] if critic else [_CRITIC]
    if torch.equal(sample.log_prefix, weights.prefix(sample.log_ratios, segments)):
        change.append(_SOURCES)
    least = min(LEAST_ESS, len(sample) / 10)
    collect = reading.effective_sample_size < least or reading.mean < LEAST_MEAN
    if collect:
        reasons.append(
            f"That is too little: below {least:g} effective episodes, or {LEAST_MEAN:g} of mean "
            "weight, a few episodes decide, or none is one that the target would have sampled."
        )
        change = [_NEARER, _STATES, *change]
    near = diagnostics.read(diagnostics.step_health(sample.log_ratios, segments)).total.ess_share
    if collect and near >= NEAR_STEP_ESS and len(sample) >= MANY and not critic:
        reasons.append(
            f"Single ratios are even (their effective sample size is {near:.0%} of the steps): "
            "their bias is less than what truncation would cut off."
        )
        recipe, code, maximum = scores.step, "loss = rw.recipes.step(sample)", math.inf
    else:
        maximum = max(1.0, math.sqrt(len(sample)) / 2)
        reasons.append(_bound_sentence(sample, maximum))
        if critic:
            reasons.append("The critic takes out of the sampled term what it explains.")
        whole = values.doubly_robust if critic else values.per_decision
        recipe = truncated(whole, maximum=maximum)
        code = (
            f"recipe = rw.recipes.truncated(rw.recipes.{whole.name}, maximum={maximum:.4g})\n"
            f"loss = recipe({', '.join(('sample', *whole.inputs))})"
        )
    return Recommendation(recipe, code, maximum, collect, tuple(reasons), tuple(change), warnings)


_NEARER = "Episodes sampled nearer to the target would change it."
_STATES = (
    "So would the ratio of the states' visits (rw.marginal), where states are few or have good "
    "features: its variance does not grow with the horizon."
)
_CRITIC = (
    "A critic of action values (critic=True) would change it to the doubly robust form, which had "
    "about half the error in the study, with the behaviour's exact values for a critic."
)
_SOURCES = (
    "If several policies sampled the batch, their log-probabilities of every action "
    "(sample.against) would make the weights smaller."
)


def _on_policy(furthest: float, warnings: tuple[str, ...]) -> Recommendation:
    reason = (
        f"The data is the target's own: no prefix weight is more than {math.expm1(furthest):.2%} "
        "from 1, so no weights are needed. per_decision gives the same here and stays right once "
        "the policies part; a critic would only lower the variance."
    )
    code = "loss = rw.recipes.reinforce(sample)"
    return Recommendation(scores.reinforce, code, math.inf, False, (reason,), (), warnings)


def _for_fragments(critic: bool, warnings: tuple[str, ...]) -> Recommendation:
    recipe = actor_critic.impala if critic else scores.step
    inputs = "values, bootstrap" if critic else "bootstrap=bootstrap"
    code = f"loss = rw.recipes.{recipe.name}(sample, {inputs})"
    reason = (
        "Some episodes start after time 0, and the weights that their earlier steps have earned "
        "are not here: prefix weights are out of reach, single ratios are not. Nor are the rewards "
        "after a cut: bootstrap, `[N]`, is the value after each fragment's last step, 0 where its "
        "episode ended there."
    )
    change = (
        "Join the fragments of each episode; or, with their log_weight_start, compose with "
        "rw.weights.prefix."
    )
    return Recommendation(recipe, code, math.inf, False, (reason,), (change,), warnings)


def _bound_sentence(sample: Sample, maximum: float) -> str:
    bounded = weights.truncate(sample.log_prefix, sample.segments, maximum=maximum)
    over = float(bounded.fraction)
    if over == 0:
        return (
            f"No weight exceeds max(1, √N / 2) = {maximum:.4g}: on this batch the bound changes "
            "nothing; it is for the batch that does have such a weight."
        )
    return (
        f"{over:.2%} of the steps have a weight above max(1, √N / 2) = {maximum:.4g}: truncated, "
        "they cost some bias, which goes as N grows, and save more variance."
    )


def _ess_sentences(sample: Sample, reading: WeightReading) -> list[str]:
    median = float(diagnostics.ess_by_time(sample.log_prefix, sample.segments).median())
    return [
        f"Of {len(sample)} {'episode' if len(sample) == 1 else 'episodes'} of "
        f"{sample.segments.lengths.double().mean():.1f} steps on average, "
        f"the effective sample size is {median:.3g} at the median time and "
        f"{reading.effective_sample_size:.3g} at the last.",
        f"The mean weight of an episode is {reading.mean:.3g} "
        f"{_plus_minus(reading.standard_error)}, where 1 is expected.",
    ]


def _plus_minus(standard_error: float) -> str:
    return "(one weight)" if math.isnan(standard_error) else f"± {standard_error:.2g}"


def _tail_sentence(reading: WeightReading) -> str:
    if not math.isfinite(reading.k_hat):
        return (
            f"k-hat cannot be told: {reading.sample_size} weights are too few, too much alike, or "
            "all but a few of them next to nothing."
        )
    within = reading.k_hat <= reading.k_hat_threshold
    return (
        f"k-hat is {reading.k_hat:.2f}, {'within' if within else 'above'} the "
        f"{reading.k_hat_threshold:.2f} up to which a mean of {reading.sample_size} weights is "
        f"reliable{'' if within else ', so its standard error is not to be believed'}."
    )


def _step_warnings(log_ratios: Tensor, segments: Segments) -> tuple[str, ...]:
    """A step's ratio has mean 1 given the past, so that steps are uncorrelated, if not independent.

    A mean below 1 proves nothing where ratios are uneven: the rare large ones may be missing.
    """
    steps = diagnostics.read(diagnostics.step_health(log_ratios, segments)).total
    warnings = []
    if bool((log_ratios == 0).all()):
        warnings.append(
            "the behaviour's log-probabilities are bit for bit the target's. Two programs never "
            "agree so: if a sampler took the actions, or an older policy, pass what it recorded, "
            "not what the target computes now, or every weight is 1 whatever the data."
        )
    if steps.undefined:
        warnings.append(f"{steps.undefined} steps have a ratio that is NaN or infinite.")
    # Rounding of float32 log-probabilities, for ratios that are all but equal.
    excess = steps.mean - 1 if abs(steps.mean - 1) > 1e-3 else 0.0
    is_high = excess > STANDARD_ERRORS * steps.standard_error
    is_low = -excess > STANDARD_ERRORS * steps.standard_error and steps.ess_share > NEAR_STEP_ESS
    if steps.mean == 0 or (steps.sample_size >= LEAST_COUNT and (is_high or is_low)):
        missing = "" if is_high else ", or the actions that the target prefers are not in the batch"
        warnings.append(
            f"the mean ratio of a step is {steps.mean:.4g} ± {steps.standard_error:.2g}, where 1 "
            f"is expected: the log-probabilities do not belong to these actions{missing}. "
            "Compare temperature, top-k and top-p, precision, and the order of the steps."
        )
    return tuple(warnings)
