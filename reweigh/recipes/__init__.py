"""Published estimators, each a composition of the stages in `reweigh.core`.

A recipe is a value: called with a `Sample` it gives the loss, and it declares what its gradient is
in expectation (`recipe.expectation`), which `reweigh verify` checks by enumerating every trajectory
of small problems. Notation: `N` episodes sampled by `π_φ`, `ρ_t = π_θ(a_t|s_t) / π_φ(a_t|s_t)`,
`w_t = Π_{k≤t} ρ_k`, `W = w_{T-1}`, `G_t = Σ_{t'≥t} γ^(t'-t) r_t'`, and
`score_t = ∇_θ log π_θ(a_t|s_t)`. "Second moment" is that of the weight, as the horizon `T` grows.

    values         behaviour, importance_sampling, per_decision, doubly_robust, balance_heuristic,
                   the self-normalised (`weighted_`) ones, truncated_..., pareto_smoothed
    scores         reinforce, step, behaviour_continuation, trajectory, state_marginal, power_mean
    actor_critic   impala, retrace, acer: a learned critic
    trust_region   trpo, ppo, geppo, pois, awr: near a policy that is known
    groups         grpo, dr_grpo, dapo, rloo, gspo, cispo, topr: the answers to one prompt compared
    mismatch       tis, icepop, decoupled_ppo: a sampler that is not the trainer

`ALL` has every recipe by its name, `rw.recipes.NAME` is one of them. `evaluate` asks every value
recipe that a log has the inputs for, and `learn` can maximise it. `truncated(recipe, maximum=...)`
bounds the weights of one that reads prefix weights. To change another part, write the recipe's few
lines anew with `@gradient(...)` or `@value(...)` and other parts.

All of them raise a `ValueError` for a wrong shape or a knob out of range. For fragments of episodes
those with prefix weights need `log_weight_start`, and those with trajectory weights need
`Sample.with_totals`.
"""

from reweigh.recipes import actor_critic, groups, mismatch, scores, trust_region, values
from reweigh.recipes.actor_critic import expected_value as expected_value
from reweigh.recipes.composing import truncated as truncated
from reweigh.recipes.composing import weighted_score as weighted_score
from reweigh.recipes.expectation import BIASED as BIASED
from reweigh.recipes.expectation import CONSISTENT as CONSISTENT
from reweigh.recipes.expectation import UNBIASED as UNBIASED
from reweigh.recipes.expectation import Expectation as Expectation
from reweigh.recipes.expectation import Gradient as Gradient
from reweigh.recipes.expectation import Identity as Identity
from reweigh.recipes.groups import Grouped as Grouped
from reweigh.recipes.recipe import GradientRecipe as GradientRecipe
from reweigh.recipes.recipe import Recipe as Recipe
from reweigh.recipes.recipe import ValueRecipe as ValueRecipe
from reweigh.recipes.recipe import gradient as gradient
from reweigh.recipes.recipe import value as value
from reweigh.recipes.trust_region import policy_weights as policy_weights

ALL: dict[str, Recipe] = {
    recipe.name: recipe
    for module in (values, scores, actor_critic, trust_region, groups, mismatch)
    for recipe in vars(module).values()
    if isinstance(recipe, Recipe)
}
"""Every recipe by its name: what `verify`, `evaluate` and `learn` go over."""

VALUES: dict[str, ValueRecipe] = {
    name: recipe for name, recipe in ALL.items() if isinstance(recipe, ValueRecipe)
}
"""Those that estimate a value."""


def __getattr__(name: str) -> Recipe:
    if name not in ALL:
        raise AttributeError(f"module 'reweigh.recipes' has no attribute {name!r}")
    return ALL[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *ALL})
