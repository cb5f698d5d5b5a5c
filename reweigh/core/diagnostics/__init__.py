"""How healthy weights are: numbers for people and for decisions. Nothing here has a gradient.

Which file to read:
    ess         effective sample sizes: of weights, of the gradient, at each time
    summary     a batch in a few numbers, read at once
    health      the record made in the training step, mergeable, never waiting for the device
    reading     the record as numbers
    advice      the numbers as sentences
"""

from reweigh.core.diagnostics.advice import advice as advice
from reweigh.core.diagnostics.advice import doubts as doubts
from reweigh.core.diagnostics.ess import effective_sample_size as effective_sample_size
from reweigh.core.diagnostics.ess import ess_by_time as ess_by_time
from reweigh.core.diagnostics.ess import ess_of_sums as ess_of_sums
from reweigh.core.diagnostics.ess import (
    gradient_effective_sample_size as gradient_effective_sample_size,
)
from reweigh.core.diagnostics.health import WeightHealth as WeightHealth
from reweigh.core.diagnostics.health import episode_health as episode_health
from reweigh.core.diagnostics.health import merge_health as merge_health
from reweigh.core.diagnostics.health import pool_groups as pool_groups
from reweigh.core.diagnostics.health import step_health as step_health
from reweigh.core.diagnostics.health import weight_health as weight_health
from reweigh.core.diagnostics.reading import HealthReading as HealthReading
from reweigh.core.diagnostics.reading import WeightReading as WeightReading
from reweigh.core.diagnostics.reading import read as read
from reweigh.core.diagnostics.summary import WeightSummary as WeightSummary
from reweigh.core.diagnostics.summary import approximate_kl as approximate_kl
from reweigh.core.diagnostics.summary import weight_summary as weight_summary
