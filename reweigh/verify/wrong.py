"""Recipes that declare what is not so: a verification that accepts one of them shows nothing."""

from dataclasses import replace

from reweigh.recipes import ALL, BIASED, CONSISTENT, UNBIASED, Identity, Recipe
from reweigh.recipes.expectation import BEHAVIOUR, TARGET, Gradient

WRONG: dict[str, Recipe] = {
    "per_decision as biased": replace(ALL["per_decision"], expectation=BIASED),
    "per_decision as consistent": replace(ALL["per_decision"], expectation=CONSISTENT),
    "per_decision as the behaviour's value": replace(ALL["per_decision"], estimated=BEHAVIOUR),
    "behaviour as the target's value": replace(ALL["behaviour"], estimated=TARGET),
    "step as unbiased": replace(ALL["step"], expectation=UNBIASED),
    "step without discount": replace(
        ALL["step"],
        expectation=UNBIASED._replace(gradient=Gradient(BEHAVIOUR, BEHAVIOUR, discounted=False)),
    ),
    "weighted_per_decision as unbiased": replace(
        ALL["weighted_per_decision"], expectation=UNBIASED
    ),
    "weighted_per_decision as biased": replace(ALL["weighted_per_decision"], expectation=BIASED),
    "reinforce as biased on-policy": replace(ALL["reinforce"], on_policy=BIASED),
    "rloo as biased on-policy": replace(ALL["rloo"], on_policy=BIASED),
    "grpo as unbiased on-policy": replace(ALL["grpo"], on_policy=UNBIASED),
    "state_marginal for every critic": replace(
        ALL["state_marginal"], expectation=UNBIASED._replace(any_critic=True)
    ),
    "doubly_robust for the exact critic alone": replace(ALL["doubly_robust"], expectation=UNBIASED),
    "ppo as trpo": replace(
        ALL["ppo"],
        identity=Identity("trpo", {}, lambda *inputs, **named: ALL["trpo"](*inputs, **named)),
    ),
    "topr by the formula of rloo": replace(ALL["topr"], name="rloo", identity=None),
}
"""By what is claimed."""
