"""Importance weights: which ratios multiply (scope), how large they may grow, what they sum to.

Everything here takes and returns *log*-weights `[S]` float64, 0 where no step exists; `exp` belongs
to whoever composes, after every bound, so that nothing overflows on the way. Weights are
differentiable in the log-ratios; the surrogates treat them as constants.
"""

from reweigh.core.weights.bounds import Bounded as Bounded
from reweigh.core.weights.bounds import truncate as truncate
from reweigh.core.weights.mixtures import balance_heuristic as balance_heuristic
from reweigh.core.weights.mixtures import mixture as mixture
from reweigh.core.weights.normalise import log_sum_by_time as log_sum_by_time
from reweigh.core.weights.normalise import self_normalise as self_normalise
from reweigh.core.weights.scopes import prefix as prefix
from reweigh.core.weights.scopes import step as step
from reweigh.core.weights.scopes import trajectory as trajectory
