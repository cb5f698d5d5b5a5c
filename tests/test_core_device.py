"""On a GPU every function gives the numbers of the CPU. Skipped where there is none."""

from functools import partial

import pytest
import torch
from core_batches import PER_BATCH, PER_STEP, close, ragged
from recipe_table import INPUTS, loss

from reweigh.core import diagnostics, support
from reweigh.core.segments import Segments

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")

FUNCTIONS = {**PER_STEP, **PER_BATCH, **{f"recipe {name}": partial(loss, name) for name in INPUTS}}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_gives_the_numbers_of_the_cpu_where_its_inputs_are(name):
    batch = ragged([5, 0, 9, 1, 10], 3)
    expected, found = FUNCTIONS[name](batch), FUNCTIONS[name](batch.to("cuda"))
    assert found.device.type == "cuda"
    close(found.cpu(), expected, 1e-9)


def test_segments_are_where_their_mask_is():
    mask = torch.tensor([[True, False, True], [True, True, False]])
    there = mask.cuda()
    for segments in (
        Segments.masked(there),
        Segments.padded([3, 2], 3, mask=there.flatten()),
        Segments.packed([3, 3], mask=there.flatten(), time_start=torch.tensor([0, 2])),
    ):
        assert segments.time.device.type == "cuda"
        assert segments.lengths.tolist() == [2, 2]


def test_health_is_recorded_there_and_read_here():
    batch = ragged([5, 9], 3)
    records = [diagnostics.step_health(b.ratios, b.segments) for b in (batch, batch.to("cuda"))]
    assert all(part.device.type == "cuda" for part in records[1])
    here, there = (diagnostics.read(record).total for record in records)
    assert there.effective_sample_size == pytest.approx(here.effective_sample_size, rel=1e-9)
    assert there.k_hat == pytest.approx(here.k_hat, rel=1e-6, nan_ok=True)
    assert there.quantiles == pytest.approx(here.quantiles, rel=1e-9)


def test_a_support_is_computed_there():
    logits = torch.randn(40, 30, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(40) % 30
    found = []
    for device in ("cpu", "cuda"):
        x, y = logits.to(device), labels.to(device)
        kept = support.top_p(x, p=0.9) | support.top_k(x, k=5)
        found.append((support.log_mass(x, kept), support.log_prob(x, y)))
    for here, there in zip(*found, strict=True):
        assert there.device.type == "cuda"
        close(there.cpu(), here, 1e-5)
