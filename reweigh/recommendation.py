"""Which weight for this batch: the rule of docs/which-weight.md, applied and explained."""

import math
import textwrap
from dataclasses import dataclass

import torch
from torch import Tensor

from reweigh.core import diagnostics, weights
from reweigh.core.diagnostics import WeightReading
from reweigh.core.ratios import log_ratios
from reweigh.core.segments import Segments
from reweigh.core.weights.psis import LEAST_COUNT

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

_RATIOS = "log_ratios = rw.log_ratios(log_prob_target, log_prob_behaviour, segments)"
_PREFIX = f"{_RATIOS}\nlog_weights = rw.weights.prefix(log_ratios, segments)"
_BALANCE = """\
log_weights = rw.weights.balance_heuristic(
    log_prob_target, log_prob_sources, proportions, segments
)"""
_TRUNCATE = """
log_weights = rw.weights.truncate(log_weights, segments, maximum={maximum:.4g}).log_weights"""
_FROM_START = """
from_start = rw.returns.discount_from_start(segments, discount=discount)"""
_PER_DECISION = f"""
continuation = rw.returns.weighted_reward_to_go(rewards, log_weights, segments, discount=discount)\
{_FROM_START}
objective = rw.surrogates.weighted_log_prob(log_prob_target, from_start, continuation, segments)
loss = rw.loss(objective, segments)"""
_DOUBLY_ROBUST = f"""
taken = action_values.gather(1, actions.unsqueeze(1)).squeeze(1)
values = (log_probs.exp() * action_values).sum(1)
left = rewards + discount * segments.next(values, bootstrap) - taken
continuation = rw.returns.weighted_reward_to_go(left, log_weights, segments, discount=discount)\
{_FROM_START}
sampled = rw.surrogates.weighted_log_prob(log_prob_target, from_start, continuation, segments)
earlier = segments.previous(log_weights, log_weights.new_zeros(len(segments))).exp()
expected = rw.surrogates.expected_value(log_probs, from_start * earlier, action_values, segments)
loss = rw.loss(sampled + expected, segments)"""
_CODE = {
    name: f"loss = rw.recipes.{name}(\n    {arguments}, segments, discount=discount\n)"
    for name, arguments in {
        "reinforce": "log_prob_target, rewards",
        "step": "log_prob_target, log_prob_behaviour, rewards",
        "impala": "log_prob_target, log_prob_behaviour, rewards, values, bootstrap",
    }.items()
}
_STEP_OF_FRAGMENTS = f"""{_RATIOS}
weights = rw.weights.step(log_ratios, segments).exp()
continuation = rw.returns.reward_to_go(
    rewards, segments, discount=discount, bootstrap=bootstrap
)\
{_FROM_START}
objective = rw.surrogates.weighted_log_prob(
    log_prob_target, weights, from_start * continuation, segments
)
loss = rw.loss(objective, segments)"""


@dataclass(frozen=True)
class Recommendation:
    """Which estimator to use on a batch, and why; `print` it."""

    recipe: str
    """Its name: `reinforce`, `step` or `impala` of `rw.recipes`; `per_decision` or
    `balance_heuristic` of them with "truncated" behind it; "doubly_robust truncated"; or "nothing",
    for an empty batch."""
    code: str
    """Python that computes `loss` from `rw`, the arguments given here, `rewards` and `discount`
    (with a critic from `log_probs` and `action_values` `[S, A]`, `actions` `[S]` and `bootstrap`
    `[N]` too, or from `values` where the recipe is `impala`)."""
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
        headline = f"Use {self.recipe}"
        if self.maximum < math.inf:
            headline += f" at {self.maximum:.4g}"
        if self.collect:
            headline = "Collect fresh episodes"
            headline += f"; until then use {self.recipe}" if self.code else ""
            headline += f" at {self.maximum:.4g}" if self.maximum < math.inf else ""
        sentences = [*(f"Warning: {w}" for w in self.warnings), f"{headline}."]
        text = " ".join([*sentences, *self.reasons, *self.would_change])
        code = textwrap.indent(self.code, "    ")
        return "\n\n".join(filter(None, [textwrap.fill(text, 88), code]))


@torch.no_grad()
def recommend(
    log_prob_target: Tensor,
    log_prob_behaviour: Tensor,
    segments: Segments,
    *,
    log_prob_sources: Tensor | None = None,
    proportions: Tensor | None = None,
    critic: bool = False,
) -> Recommendation:
    """Recommends an estimator of `∇J_γ(θ)` for a batch, by the rule of docs/which-weight.md.

    Per-decision weights, truncated at `√N / 2` (Ionides 2008 has `√N`) and no lower than 1; on
    what a critic of action values leaves unexplained, if there is one; against the mixture of all
    behaviours, if their log-probabilities are known. Single ratios where prefix weights are spent
    or cannot be had. The rule was chosen for its root mean square error over random problems, which
    `benchmarks/which_weight.py` computes exactly.

    Args:
        log_prob_target: `[S]`.
        log_prob_behaviour: `[S]`.
        segments: Where the episodes lie.
        log_prob_sources: `[J, S]`, of every logged action under every behaviour, if known.
        proportions: `[J]`, their shares of the episodes.
        critic: Whether there is a critic of action values.

    Returns:
        The answer, its reasons in numbers, and code. On-policy, it is `reinforce`.

    Raises:
        ValueError: Another shape; half precision; sources without proportions.
    """
    if (log_prob_sources is None) != (proportions is None):
        raise ValueError("log_prob_sources and proportions belong together: pass both or neither")
    ratios = log_ratios(log_prob_target, log_prob_behaviour, segments)
    warnings = _step_warnings(ratios, segments)
    if segments.existing.numel() == 0:
        return Recommendation("nothing", "", math.inf, True, ("The batch holds no step.",), (), ())
    if segments.has_fragments:
        return _for_fragments(critic, warnings)
    if log_prob_sources is None or proportions is None:
        prefix, recipe, setup = weights.prefix(ratios, segments), "per_decision", _PREFIX
    else:
        recipe, setup = "balance_heuristic", _BALANCE
        prefix = weights.balance_heuristic(log_prob_target, log_prob_sources, proportions, segments)
    furthest = float(prefix.abs().max())
    if furthest <= FRESH:
        return _on_policy(furthest, warnings)
    reading = diagnostics.read(diagnostics.episode_health(prefix, segments)).total
    reasons = [*_ess_sentences(prefix, reading, segments), _tail_sentence(reading)]
    change = [] if critic else [_CRITIC]
    change += [] if recipe == "balance_heuristic" else [_SOURCES]
    least = min(LEAST_ESS, len(segments) / 10)
    collect = reading.effective_sample_size < least or reading.mean < LEAST_MEAN
    if collect:
        reasons.append(
            f"That is too little: below {least:g} effective episodes, or {LEAST_MEAN:g} of mean "
            "weight, a few episodes decide, or none is one that the target would have sampled."
        )
        change = [_NEARER, _STATES, *change]
    near = diagnostics.read(diagnostics.step_health(ratios, segments)).total.ess_share
    if collect and near >= NEAR_STEP_ESS and len(segments) >= MANY and not critic:
        reasons.append(
            f"Single ratios are even (their effective sample size is {near:.0%} of the steps): "
            "their bias is less than what truncation would cut off."
        )
        code = _CODE["step"]
        return Recommendation("step", code, math.inf, True, tuple(reasons), tuple(change), warnings)
    maximum = max(1.0, math.sqrt(len(segments)) / 2)
    reasons.append(_bound_sentence(prefix, segments, maximum))
    setup += _TRUNCATE.format(maximum=maximum)
    code = setup + _PER_DECISION
    if critic:
        recipe, code = "doubly_robust", setup + _DOUBLY_ROBUST
        reasons.append("The critic takes out of the sampled term what it explains.")
    return Recommendation(
        f"{recipe} truncated", code, maximum, collect, tuple(reasons), tuple(change), warnings
    )


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
    "(log_prob_sources) would make the weights smaller."
)


def _on_policy(furthest: float, warnings: tuple[str, ...]) -> Recommendation:
    reason = (
        f"The data is the target's own: no prefix weight is more than {math.expm1(furthest):.2%} "
        "from 1, so no weights are needed. per_decision gives the same here and stays right once "
        "the policies part; a critic would only lower the variance."
    )
    return Recommendation("reinforce", _CODE["reinforce"], math.inf, False, (reason,), (), warnings)


def _for_fragments(critic: bool, warnings: tuple[str, ...]) -> Recommendation:
    recipe = "impala" if critic else "step"
    code = _CODE["impala"] if critic else _STEP_OF_FRAGMENTS
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


def _bound_sentence(prefix: Tensor, segments: Segments, maximum: float) -> str:
    over = float(weights.truncate(prefix, segments, maximum=maximum).fraction)
    if over == 0:
        return (
            f"No weight exceeds max(1, √N / 2) = {maximum:.4g}: on this batch the bound changes "
            "nothing; it is for the batch that does have such a weight."
        )
    return (
        f"{over:.2%} of the steps have a weight above max(1, √N / 2) = {maximum:.4g}: truncated, "
        "they cost some bias, which goes as N grows, and save more variance."
    )


def _ess_sentences(prefix: Tensor, reading: WeightReading, segments: Segments) -> list[str]:
    median = float(diagnostics.ess_by_time(prefix, segments).median())
    return [
        f"Of {len(segments)} {'episode' if len(segments) == 1 else 'episodes'} of "
        f"{segments.lengths.double().mean():.1f} steps on average, "
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


def _step_warnings(ratios: Tensor, segments: Segments) -> tuple[str, ...]:
    """A step's ratio has mean 1 given the past, so that steps are uncorrelated, if not independent.

    A mean below 1 proves nothing where ratios are uneven: the rare large ones may be missing.
    """
    steps = diagnostics.read(diagnostics.step_health(ratios, segments)).total
    found = []
    if steps.undefined:
        found.append(f"{steps.undefined} steps have a ratio that is NaN or infinite.")
    # Rounding of float32 log-probabilities, for ratios that are all but equal.
    away = steps.mean - 1 if abs(steps.mean - 1) > 1e-3 else 0.0
    high = away > STANDARD_ERRORS * steps.standard_error
    low = -away > STANDARD_ERRORS * steps.standard_error and steps.ess_share > NEAR_STEP_ESS
    if steps.mean == 0 or (steps.sample_size >= LEAST_COUNT and (high or low)):
        found.append(
            f"the mean ratio of a step is {steps.mean:.4g} ± {steps.standard_error:.2g}, where 1 "
            "is expected: the log-probabilities do not belong to these actions"
            f"{'' if high else ', or the actions that the target prefers are not in the batch'}. "
            "Compare temperature, top-k and top-p, precision, and the order of the steps."
        )
    return tuple(found)
