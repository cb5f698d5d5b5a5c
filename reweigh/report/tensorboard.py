"""The metrics as TensorBoard's event files, over environment steps."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from reweigh.train.progress import HISTOGRAM_BINS, Progress

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


class TensorBoardWriter:
    """Writes one event file; a resumed run adds another, which replaces what it does again.

    Args:
        folder: Where the event files are; made when the first iteration is written.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def write(self, progress: Progress) -> None:
        """Adds the points of one iteration."""
        if self._writer is None:
            from torch.utils.tensorboard.writer import SummaryWriter  # a second to import

            # A killed run may have left points at and after the step where it is taken up again.
            self._writer = SummaryWriter(self._folder, purge_step=progress.steps, flush_secs=10)
        for tag, value in scalars(progress).items():
            self._writer.add_scalar(tag, value, progress.steps)
        _add_histogram(self._writer, progress)

    def close(self) -> None:
        """Writes what is still in memory."""
        if self._writer is not None:
            self._writer.close()


def scalars(progress: Progress) -> dict[str, float]:
    """The points of curves, by tag; a return that was not measured is left out."""
    values = {
        "return/evaluation": progress.evaluation_return,
        "return/training": progress.training_return,
        "weights/ess": progress.ess,
        "weights/mean": progress.mean_weight,
        "weights/max": progress.max_weight,
        "improvement/kl": progress.kl,
        "improvement/epochs": progress.epochs,
        "policy/entropy": progress.entropy,
        "loss/policy": progress.policy_loss,
        "loss/value": progress.value_loss,
        "reuse/steps": progress.reused_steps,
        "reuse/uses": progress.uses,
        "time/seconds": progress.seconds,
        "time/episodes": progress.episodes,
    }
    return {tag: value for tag, value in values.items() if value is not None}


def _add_histogram(writer: "SummaryWriter", progress: Progress) -> None:
    edges = np.linspace(-2, 2, HISTOGRAM_BINS + 1)
    centres = (edges[:-1] + edges[1:]) / 2
    counts = np.array(progress.weight_histogram)
    writer.add_histogram_raw(
        "weights/log10",
        min=-2.0,
        max=2.0,
        num=int(counts.sum()),
        sum=float(counts @ centres),
        sum_squares=float(counts @ centres**2),
        bucket_limits=edges[1:].tolist(),
        bucket_counts=counts.tolist(),
        global_step=progress.steps,
    )
