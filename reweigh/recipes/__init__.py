"""Published estimators, each a composition of the stages in `reweigh.core`.

Every recipe returns a scalar loss whose negative gradient is the estimate `ĝ` of its formula:
`N` episodes sampled by `π_φ`, `ρ_t = π_θ(a_t|s_t) / π_φ(a_t|s_t)`, `w_t = Π_{k≤t} ρ_k`,
`W = w_{T-1}`, `G_t = Σ_{t'≥t} γ^(t'-t) r_t'`, `score_t = ∇_θ log π_θ(a_t|s_t)`. What is said of its
expectation is exact and is checked by enumerating every trajectory of three small problems
(`reweigh verify`). "Second moment" is that of the weight, as the horizon `T` grows.

    exact          reinforce, step, seed, per_decision, trajectory, state_marginal
    mixtures       balance_heuristic, power_mean: several behaviour policies
    actor_critic   impala, retrace, acer, doubly_robust: a learned critic
    trust_region   trpo, ppo, geppo, pois, awr: near a policy that is known
    groups         grpo, dr_grpo, dapo, rloo, gspo, cispo: the answers to one prompt compared
    mismatch       tis, icepop, decoupled_ppo, topr: a sampler that is not the trainer

`divisor` is what the sum over steps is divided by, in place of the number of episodes `N` unless
another is named: the whole batch's, where the batch comes in parts (`core.reduce`).

To change a part (truncate the weights, drop `γ^t`, add a baseline), write the recipe's few lines
anew with other parts. All of them raise a `ValueError` for a wrong shape, a half-precision
log-probability or a knob out of range, and those with prefix or trajectory weights for fragments,
which need `log_weight_start` (see `core.weights.prefix`).
"""

from reweigh.recipes.actor_critic import acer as acer
from reweigh.recipes.actor_critic import doubly_robust as doubly_robust
from reweigh.recipes.actor_critic import impala as impala
from reweigh.recipes.actor_critic import retrace as retrace
from reweigh.recipes.exact import per_decision as per_decision
from reweigh.recipes.exact import reinforce as reinforce
from reweigh.recipes.exact import seed as seed
from reweigh.recipes.exact import state_marginal as state_marginal
from reweigh.recipes.exact import step as step
from reweigh.recipes.exact import trajectory as trajectory
from reweigh.recipes.groups import cispo as cispo
from reweigh.recipes.groups import dapo as dapo
from reweigh.recipes.groups import dr_grpo as dr_grpo
from reweigh.recipes.groups import grpo as grpo
from reweigh.recipes.groups import gspo as gspo
from reweigh.recipes.groups import rloo as rloo
from reweigh.recipes.mismatch import decoupled_ppo as decoupled_ppo
from reweigh.recipes.mismatch import icepop as icepop
from reweigh.recipes.mismatch import tis as tis
from reweigh.recipes.mismatch import topr as topr
from reweigh.recipes.mixtures import balance_heuristic as balance_heuristic
from reweigh.recipes.mixtures import power_mean as power_mean
from reweigh.recipes.trust_region import awr as awr
from reweigh.recipes.trust_region import geppo as geppo
from reweigh.recipes.trust_region import pois as pois
from reweigh.recipes.trust_region import ppo as ppo
from reweigh.recipes.trust_region import trpo as trpo
