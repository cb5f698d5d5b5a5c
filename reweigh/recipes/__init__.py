"""Published estimators, each a composition of the stages in `reweigh.core`.

Every recipe returns a scalar loss whose negative gradient is the estimate `ĝ` of its formula:
`N` episodes sampled by `π_φ`, `ρ_t = π_θ(a_t|s_t) / π_φ(a_t|s_t)`, `w_t = Π_{k≤t} ρ_k`,
`W = w_{T-1}`, `G_t = Σ_{t'≥t} γ^(t'-t) r_t'`, `score_t = ∇_θ log π_θ(a_t|s_t)`. What is said of its
expectation is exact and is checked by enumerating every trajectory of three small problems
(`reweigh verify`). "Second moment" is that of the weight, as the horizon `T` grows.

To change a part (truncate the weights, drop `γ^t`, add a baseline), write the recipe's few lines
anew with other parts. All of them raise a `ValueError` for a wrong shape, a half-precision
log-probability or a knob out of range, and those with prefix or trajectory weights for fragments,
which need `log_weight_start` (see `core.weights.prefix`).
"""

from reweigh.recipes.actor_critic import vtrace as vtrace
from reweigh.recipes.exact import per_decision as per_decision
from reweigh.recipes.exact import reinforce as reinforce
from reweigh.recipes.exact import seed as seed
from reweigh.recipes.exact import step as step
from reweigh.recipes.exact import trajectory as trajectory
from reweigh.recipes.trust_region import ppo as ppo
