"""The policy that sampled a log, estimated from the log where its log-probabilities are missing."""

from reweigh.behaviour.calibration import Calibration as Calibration
from reweigh.behaviour.estimate import EstimatedBehaviour as EstimatedBehaviour
from reweigh.behaviour.estimate import counts_where_possible as counts_where_possible
from reweigh.behaviour.estimate import estimate_behaviour as estimate_behaviour
from reweigh.behaviour.networks import fit_network as fit_network
from reweigh.behaviour.tables import counts as counts
