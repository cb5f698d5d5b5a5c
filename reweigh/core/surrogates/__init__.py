"""Objectives to *maximise*, whose gradient is the policy gradient, `[S]`; `pois_bound` is a scalar.

Weights, advantages and centres are detached here: they are constants in all objectives `[S]`.

    weighted    weighted_log_prob, weighted_ratio, expected_value
    clipped     clipped_ratio
    penalties   kl_k1, kl_k2, kl_k3, kl_from_reference; entropy (a bonus)
    bound       pois_bound, with renyi_sample_size
"""

from reweigh.core.surrogates.bound import pois_bound as pois_bound
from reweigh.core.surrogates.bound import renyi_sample_size as renyi_sample_size
from reweigh.core.surrogates.clipped import clipped_ratio as clipped_ratio
from reweigh.core.surrogates.penalties import entropy as entropy
from reweigh.core.surrogates.penalties import kl_from_reference as kl_from_reference
from reweigh.core.surrogates.penalties import kl_k1 as kl_k1
from reweigh.core.surrogates.penalties import kl_k2 as kl_k2
from reweigh.core.surrogates.penalties import kl_k3 as kl_k3
from reweigh.core.surrogates.weighted import expected_value as expected_value
from reweigh.core.surrogates.weighted import weighted_log_prob as weighted_log_prob
from reweigh.core.surrogates.weighted import weighted_ratio as weighted_ratio
