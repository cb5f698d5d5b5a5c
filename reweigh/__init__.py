"""Train policies from trajectories that older policies sampled, by importance weighting.

The mathematics is here at once: `recipes` for published estimators, and the stages that they are
made of. What needs a disk or an environment loads when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from reweigh import recipes as recipes
from reweigh.core import advantages as advantages
from reweigh.core import diagnostics as diagnostics
from reweigh.core import divergences as divergences
from reweigh.core import marginal as marginal
from reweigh.core import reduce as reduce
from reweigh.core import returns as returns
from reweigh.core import support as support
from reweigh.core import surrogates as surrogates
from reweigh.core import weights as weights
from reweigh.core.ranks import merge_over_ranks as merge_over_ranks
from reweigh.core.ratios import log_ratios as log_ratios
from reweigh.core.reduce import loss as loss
from reweigh.core.sample import EpisodeTotals as EpisodeTotals
from reweigh.core.sample import Sample as Sample
from reweigh.core.segments import Segments as Segments
from reweigh.recommend import recommend as recommend

if TYPE_CHECKING:
    from reweigh.acting.stored import load_policy as load_policy
    from reweigh.data.batch import Batch as Batch
    from reweigh.data.log import TrajectoryLog as TrajectoryLog
    from reweigh.data.schema import ArraySpec as ArraySpec
    from reweigh.data.schema import TrajectorySchema as TrajectorySchema
    from reweigh.data.trajectories import Trajectories as Trajectories
    from reweigh.evaluation.evaluate import evaluate as evaluate
    from reweigh.learning.learn import learn as learn

_LAZY = {
    "ArraySpec": "reweigh.data.schema",
    "Batch": "reweigh.data.batch",
    "Trajectories": "reweigh.data.trajectories",
    "TrajectoryLog": "reweigh.data.log",
    "TrajectorySchema": "reweigh.data.schema",
    "evaluate": "reweigh.evaluation.evaluate",
    "learn": "reweigh.learning.learn",
    "load_policy": "reweigh.acting.stored",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'reweigh' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
