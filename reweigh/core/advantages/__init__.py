"""Advantages and value targets: how much better an action was than what was expected.

Nothing here is differentiated: targets and advantages are constants of the update they serve.
"""

from reweigh.core.advantages.traces import VTrace as VTrace
from reweigh.core.advantages.traces import gae as gae
from reweigh.core.advantages.traces import vtrace as vtrace
