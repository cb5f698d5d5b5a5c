"""Importance weights: the ratios that multiply (scope), their bounds, and their normalisation.

Every function takes and returns *log*-weights `[S]` float64, 0 where no step exists. The caller
takes `exp` after the last bound, because a product of ratios may overflow before it. Weights are
differentiable in the log-ratios; the surrogates treat them as constants.

    scopes      step, window, prefix, exclusive_prefix, trajectory, geometric_mean, turn_prefix,
                state_marginal
    bounds      clip, truncate, leaky_truncate, mask_outside, power_mean, excess, reject, veto
                (each a Bounded), and weigh
    normalise   self_normalise, self_normalise_groups, exact in parts through LogSums
    mixtures    select_behaviour, mixture, balance_heuristic, defensive, power_mean_parameters, ...
    psis        pareto_smooth and its k-hat
"""

from reweigh.core.weights.bounds import Bounded as Bounded
from reweigh.core.weights.bounds import clip as clip
from reweigh.core.weights.bounds import excess as excess
from reweigh.core.weights.bounds import leaky_truncate as leaky_truncate
from reweigh.core.weights.bounds import mask_outside as mask_outside
from reweigh.core.weights.bounds import power_mean as power_mean
from reweigh.core.weights.bounds import reject as reject
from reweigh.core.weights.bounds import truncate as truncate
from reweigh.core.weights.bounds import veto as veto
from reweigh.core.weights.bounds import weigh as weigh
from reweigh.core.weights.mixtures import PowerMean as PowerMean
from reweigh.core.weights.mixtures import Sources as Sources
from reweigh.core.weights.mixtures import balance_heuristic as balance_heuristic
from reweigh.core.weights.mixtures import (
    balance_heuristic_trajectory as balance_heuristic_trajectory,
)
from reweigh.core.weights.mixtures import defensive as defensive
from reweigh.core.weights.mixtures import mixture as mixture
from reweigh.core.weights.mixtures import power_mean_parameters as power_mean_parameters
from reweigh.core.weights.mixtures import proportions_by_age as proportions_by_age
from reweigh.core.weights.mixtures import schedule_sources as schedule_sources
from reweigh.core.weights.mixtures import select_behaviour as select_behaviour
from reweigh.core.weights.normalise import LogSums as LogSums
from reweigh.core.weights.normalise import log_sum_by_time as log_sum_by_time
from reweigh.core.weights.normalise import log_sums as log_sums
from reweigh.core.weights.normalise import log_sums_of_groups as log_sums_of_groups
from reweigh.core.weights.normalise import self_normalise as self_normalise
from reweigh.core.weights.normalise import self_normalise_groups as self_normalise_groups
from reweigh.core.weights.psis import Smoothed as Smoothed
from reweigh.core.weights.psis import k_hat_threshold as k_hat_threshold
from reweigh.core.weights.psis import pareto_k as pareto_k
from reweigh.core.weights.psis import pareto_smooth as pareto_smooth
from reweigh.core.weights.scopes import exclusive_prefix as exclusive_prefix
from reweigh.core.weights.scopes import geometric_mean as geometric_mean
from reweigh.core.weights.scopes import prefix as prefix
from reweigh.core.weights.scopes import state_marginal as state_marginal
from reweigh.core.weights.scopes import step as step
from reweigh.core.weights.scopes import trajectory as trajectory
from reweigh.core.weights.scopes import turn_prefix as turn_prefix
from reweigh.core.weights.scopes import window as window
