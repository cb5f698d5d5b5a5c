"""The state-visitation ratio `m = d^θ / d^φ`, estimated from logged steps.

The importance weight of a *state*. The product of all earlier ratios estimates it without bias, and
with a variance that grows exponentially in time; these functions estimate it with a small bias and
a variance that does not. `weights.state_marginal` multiplies it by the ratios of a step or window.

    visits         Tabular, Linear: how a log describes its states
    fixed points   finite_horizon, finite_horizon_by_time, discounted, average_reward
    kernel         kernel_discounted, random_fourier
    classifier     classifier, between a new policy's states and all states
    action values  action_values, action_values_by_time: Q^θ from the same log

Estimates are constants of the update they serve: nothing here is differentiated.
"""

from reweigh.core.marginal.action_values import action_values as action_values
from reweigh.core.marginal.action_values import action_values_by_time as action_values_by_time
from reweigh.core.marginal.classifier import Classified as Classified
from reweigh.core.marginal.classifier import classifier as classifier
from reweigh.core.marginal.fixed_points import StateRatios as StateRatios
from reweigh.core.marginal.fixed_points import average_reward as average_reward
from reweigh.core.marginal.fixed_points import discounted as discounted
from reweigh.core.marginal.fixed_points import finite_horizon as finite_horizon
from reweigh.core.marginal.fixed_points import finite_horizon_by_time as finite_horizon_by_time
from reweigh.core.marginal.kernel import KernelRatios as KernelRatios
from reweigh.core.marginal.kernel import kernel_discounted as kernel_discounted
from reweigh.core.marginal.kernel import random_fourier as random_fourier
from reweigh.core.marginal.visits import Linear as Linear
from reweigh.core.marginal.visits import Tabular as Tabular
