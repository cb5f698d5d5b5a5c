"""Train policies from trajectories that older policies sampled, by importance weighting.

`recipes` has published estimators; the other modules are the stages that they are made of. Every
name loads when it is first used: the command line and its help do without PyTorch.
"""

from typing import TYPE_CHECKING

from reweigh.lazy import lazy_names

if TYPE_CHECKING:
    from reweigh import recipes as recipes
    from reweigh.acting.stored import load_policy as load_policy
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
    from reweigh.data.batch import Batch as Batch
    from reweigh.data.log import TrajectoryLog as TrajectoryLog
    from reweigh.data.schema import ArraySpec as ArraySpec
    from reweigh.data.schema import TrajectorySchema as TrajectorySchema
    from reweigh.data.trajectories import Trajectories as Trajectories
    from reweigh.evaluation.evaluate import evaluate as evaluate
    from reweigh.evaluation.logged import sample_of as sample_of
    from reweigh.learning.learn import learn as learn
    from reweigh.recommendation import recommend as recommend

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "advantages": "reweigh.core.advantages",
        "diagnostics": "reweigh.core.diagnostics",
        "divergences": "reweigh.core.divergences",
        "marginal": "reweigh.core.marginal",
        "recipes": "reweigh.recipes",
        "reduce": "reweigh.core.reduce",
        "returns": "reweigh.core.returns",
        "support": "reweigh.core.support",
        "surrogates": "reweigh.core.surrogates",
        "weights": "reweigh.core.weights",
        "ArraySpec": "reweigh.data.schema:ArraySpec",
        "Batch": "reweigh.data.batch:Batch",
        "EpisodeTotals": "reweigh.core.sample:EpisodeTotals",
        "Sample": "reweigh.core.sample:Sample",
        "Segments": "reweigh.core.segments:Segments",
        "Trajectories": "reweigh.data.trajectories:Trajectories",
        "TrajectoryLog": "reweigh.data.log:TrajectoryLog",
        "TrajectorySchema": "reweigh.data.schema:TrajectorySchema",
        "evaluate": "reweigh.evaluation.evaluate:evaluate",
        "learn": "reweigh.learning.learn:learn",
        "load_policy": "reweigh.acting.stored:load_policy",
        "log_ratios": "reweigh.core.ratios:log_ratios",
        "loss": "reweigh.core.reduce:loss",
        "merge_over_ranks": "reweigh.core.ranks:merge_over_ranks",
        "recommend": "reweigh.recommendation:recommend",
        "sample_of": "reweigh.evaluation.logged:sample_of",
    },
)
