"""Trajectories, the log that keeps them, and the policies that sampled them."""

from reweigh.data.batch import Batch as Batch
from reweigh.data.log import LogSummary as LogSummary
from reweigh.data.log import TrajectoryLog as TrajectoryLog
from reweigh.data.policies import PolicyStore as PolicyStore
from reweigh.data.schema import ArraySpec as ArraySpec
from reweigh.data.schema import TrajectorySchema as TrajectorySchema
from reweigh.data.trajectories import Trajectories as Trajectories
