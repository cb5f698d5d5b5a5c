"""Per-step objectives to *maximise*, whose gradient is the policy gradient.

The stop-gradient lives here: weights, advantages and centres are constants in all of them.
"""

from reweigh.core.surrogates.clipped import clipped_ratio as clipped_ratio
from reweigh.core.surrogates.weighted import weighted_log_prob as weighted_log_prob
