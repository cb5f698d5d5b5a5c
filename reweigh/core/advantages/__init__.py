"""Advantages and value targets: how much better an action was than what was expected.

Nothing here is differentiated: targets and advantages are constants of the update they serve.
"""

from reweigh.core.advantages.action_values import corrected_action_values as corrected_action_values
from reweigh.core.advantages.action_values import q_lambda as q_lambda
from reweigh.core.advantages.action_values import q_pi_lambda as q_pi_lambda
from reweigh.core.advantages.action_values import retrace as retrace
from reweigh.core.advantages.action_values import tree_backup as tree_backup
from reweigh.core.advantages.groups import group_centred as group_centred
from reweigh.core.advantages.groups import group_relative as group_relative
from reweigh.core.advantages.groups import leave_one_out as leave_one_out
from reweigh.core.advantages.multistep import above_baseline as above_baseline
from reweigh.core.advantages.multistep import gae as gae
from reweigh.core.advantages.multistep import one_step as one_step
from reweigh.core.advantages.traces import VTrace as VTrace
from reweigh.core.advantages.traces import vtrace as vtrace
