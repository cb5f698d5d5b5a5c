"""How healthy weights are: numbers for people and for decisions. Nothing here has a gradient."""

from reweigh.core.diagnostics.summary import WeightSummary as WeightSummary
from reweigh.core.diagnostics.summary import approximate_kl as approximate_kl
from reweigh.core.diagnostics.summary import effective_sample_size as effective_sample_size
from reweigh.core.diagnostics.summary import ess_by_time as ess_by_time
from reweigh.core.diagnostics.summary import weight_summary as weight_summary
