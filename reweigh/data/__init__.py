"""Trajectories, the log that keeps them, and the policies that sampled them."""

from reweigh.data.log import LogSummary as LogSummary
from reweigh.data.log import TrajectoryLog as TrajectoryLog
from reweigh.data.policies import PolicyStore as PolicyStore
from reweigh.data.trajectories import ArraySpec as ArraySpec
from reweigh.data.trajectories import Trajectories as Trajectories
from reweigh.data.trajectories import TrajectorySchema as TrajectorySchema
