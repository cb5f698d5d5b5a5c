"""How healthy weights are: numbers for people and for decisions. Nothing here has a gradient.

Which file to read:
    ess         effective sample sizes of weights and at each time; approximate_kl
    health      the record made in the training step, mergeable, never waiting for the device
    reading     the record as numbers
    advice      the numbers as sentences
"""

from reweigh.core.diagnostics.advice import advice as advice
from reweigh.core.diagnostics.advice import doubts as doubts
from reweigh.core.diagnostics.ess import approximate_kl as approximate_kl
from reweigh.core.diagnostics.ess import effective_sample_size as effective_sample_size
from reweigh.core.diagnostics.ess import ess_by_time as ess_by_time
from reweigh.core.diagnostics.ess import ess_of_sums as ess_of_sums
from reweigh.core.diagnostics.health import WeightHealth as WeightHealth
from reweigh.core.diagnostics.health import episode_health as episode_health
from reweigh.core.diagnostics.health import step_health as step_health
from reweigh.core.diagnostics.health import weight_health as weight_health
from reweigh.core.diagnostics.reading import HealthReading as HealthReading
from reweigh.core.diagnostics.reading import WeightReading as WeightReading
from reweigh.core.diagnostics.reading import read as read
