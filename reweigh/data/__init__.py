"""Trajectories, the log that keeps them, and the policies that sampled them."""

from typing import TYPE_CHECKING

from reweigh.lazy import lazy_names

if TYPE_CHECKING:
    from reweigh.data.batch import Batch as Batch
    from reweigh.data.log import LogSummary as LogSummary
    from reweigh.data.log import TrajectoryLog as TrajectoryLog
    from reweigh.data.policies import PolicyStore as PolicyStore
    from reweigh.data.schema import ArraySpec as ArraySpec
    from reweigh.data.schema import TrajectorySchema as TrajectorySchema
    from reweigh.data.trajectories import Trajectories as Trajectories

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ArraySpec": "reweigh.data.schema:ArraySpec",
        "Batch": "reweigh.data.batch:Batch",
        "LogSummary": "reweigh.data.log:LogSummary",
        "PolicyStore": "reweigh.data.policies:PolicyStore",
        "Trajectories": "reweigh.data.trajectories:Trajectories",
        "TrajectoryLog": "reweigh.data.log:TrajectoryLog",
        "TrajectorySchema": "reweigh.data.schema:TrajectorySchema",
    },
)
