"""arviz-stats: Pareto smoothing; it takes minus the log-weights and returns them normalised."""

import numpy as np
import pytest
import torch
from arviz_stats.base import array_stats

from reweigh import weights


@pytest.mark.parametrize("count", [25, 100, 225, 226, 1000, 20_000])
@pytest.mark.parametrize("spread", [0.1, 1.0, 3.0, 30.0])
def test_psislw(agree, count, spread):
    g = torch.Generator().manual_seed(count)
    log_weights = spread * torch.randn(count, generator=g)
    theirs, k_hat = array_stats.psislw(-log_weights.double().numpy())
    ours = weights.pareto_smooth(log_weights)
    agree("arviz-stats", "`psislw`: k-hat", "weights.pareto_k(...)", ours.k_hat, k_hat)
    assert torch.allclose(weights.pareto_k(log_weights), ours.k_hat, rtol=1e-12)
    smooth = ours.log_weights - ours.log_weights.logsumexp(0)
    call = "weights.pareto_smooth(...)"
    if spread < 30:
        agree("arviz-stats", "`psislw`: weights", call, smooth.exp(), np.exp(theirs), each=True)
    agree("arviz-stats", "`psislw`: log-weights", call, smooth, theirs)


def test_heavy_tails(agree):
    """True shapes of .3, .7 and 1.2: `u^-k` with `u` uniform."""
    g = torch.Generator().manual_seed(0)
    u = torch.rand(20_000, generator=g, dtype=torch.float64)
    for k in (0.3, 0.7, 1.2):
        _, theirs = array_stats.psislw(k * u.log().numpy())
        ours = weights.pareto_k(-k * u.log())
        agree("arviz-stats", "`psislw`: k-hat", "weights.pareto_k(...)", ours, theirs)
        assert abs(float(ours) - k) < 0.1


def test_many_rows_at_once(agree):
    log_weights = torch.randn(5, 300, generator=torch.Generator().manual_seed(1))
    theirs, k_hat = array_stats.psislw(-log_weights.double().numpy())
    ours = weights.pareto_smooth(log_weights)
    agree("arviz-stats", "`psislw`: k-hat", "weights.pareto_k(...)", ours.k_hat, k_hat)
    agree(
        "arviz-stats",
        "`psislw`: log-weights",
        "weights.pareto_smooth(...)",
        ours.log_weights - ours.log_weights.logsumexp(-1, keepdim=True),
        theirs,
    )


def test_it_raises_where_there_is_no_tail_to_fit(differ):
    with pytest.raises(ValueError, match="All tail values are the same"):
        array_stats.psislw(np.zeros(100))
    assert weights.pareto_k(torch.zeros(100)) == -torch.inf
    differ(
        "arviz-stats",
        "k-hat of equal weights",
        "raises ValueError",
        "-inf: needs no smoothing",
        "reweigh: there is nothing to smooth",
    )
    with pytest.raises(ValueError, match="at least 5"):
        array_stats.psislw(np.arange(20.0))
    assert weights.pareto_k(torch.arange(20.0)) == torch.inf
    differ(
        "arviz-stats",
        "k-hat of 20 weights",
        "raises ValueError",
        "inf: unknown",
        "reweigh: a batch that small is no error",
    )
