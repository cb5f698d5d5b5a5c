import dataclasses
import math
from functools import reduce

import pytest
import torch
from core_batches import ragged, ragged_lengths, scatter, seeds
from hypothesis import given, settings
from torch.utils._python_dispatch import TorchDispatchMode

from reweigh.core import diagnostics, weights
from reweigh.core.diagnostics import WeightHealth, WeightReading, read, weight_health
from reweigh.core.ranks import merge_over_ranks
from reweigh.core.sample import EpisodeTotals
from reweigh.core.segments import Segments

few = settings(max_examples=15, deadline=None, derandomize=True)


def normal(count, seed, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, generator=g, dtype=torch.float64)


def same(found: WeightHealth, want: WeightHealth):
    for name, x, y in zip(WeightHealth._fields, found, want, strict=True):
        torch.testing.assert_close(x, y, rtol=1e-12, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


def alike(found: WeightReading, want: WeightReading):
    for name, value in dataclasses.asdict(want).items():
        assert getattr(found, name) == pytest.approx(value, rel=1e-9, nan_ok=True), name


class NoSync(TorchDispatchMode):
    """Refuses what makes the host wait for the device, or has a shape that depends on values."""

    WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in self.WAITS and "unique" not in name and name != "bincount", name
        if name in ("index", "index_put", "index_put_"):
            assert all(i is None or i.dtype == torch.int64 for i in args[1]), "a masked index"
        return func(*args, **(kwargs or {}))


def test_making_and_merging_a_record_does_not_wait_for_the_device():
    b = ragged([4, 0, 6], 0)
    log_weights, group = b.prefix, torch.tensor([0, 1, 1])
    diagnostics.ess_by_time(log_weights, b.segments)  # reads what the segments keep from then on
    with NoSync():
        steps = diagnostics.step_health(
            log_weights, b.segments, group=group[b.segments.episode], groups=2
        )
        episodes = diagnostics.episode_health(
            log_weights, b.segments, group=group, groups=2, magnitudes=b.bootstrap
        )
        steps.merge(steps).pooled()
        diagnostics.effective_sample_size(log_weights)
        diagnostics.ess_by_time(log_weights, b.segments)
        diagnostics.approximate_kl(log_weights, b.segments)
        weights.pareto_k(normal(100, 0))
    with pytest.raises(AssertionError, match="_local_scalar_dense"), NoSync():
        float(episodes.log_sum[0])


def test_a_reading_is_what_it_says():
    log_weights, f = normal(200, 1), normal(200, 2)
    found = read(weight_health(log_weights, magnitudes=f), top=(1, 7)).total
    w = log_weights.exp()
    assert (found.sample_size, found.undefined) == (200, 0)
    assert found.mean == pytest.approx(w.mean().item())
    assert found.standard_error == pytest.approx(w.std(correction=0).item() / math.sqrt(200))
    assert found.effective_sample_size == pytest.approx(
        diagnostics.effective_sample_size(log_weights).item()
    )
    assert found.ess_share == pytest.approx(found.effective_sample_size / 200)
    assert found.gradient_effective_sample_size == pytest.approx(
        diagnostics.effective_sample_size(log_weights + f.abs().log()).item()
    )
    assert found.k_hat == pytest.approx(weights.pareto_k(log_weights).item())
    assert found.k_hat_threshold == weights.k_hat_threshold(200)
    assert found.maximum == pytest.approx(w.max().item())
    ordered = w.sort().values
    want = {0.01: ordered[1], 0.1: ordered[19], 0.5: ordered[99], 0.9: ordered[179], 0.99: 0}
    want[0.99] = ordered[197]
    assert found.quantiles == pytest.approx({q: float(x) for q, x in want.items()})
    shares = {k: float(ordered[-k:].sum() / w.sum()) for k in (1, 7)}
    assert found.top_shares == pytest.approx(shares)
    assert found.chi_square == pytest.approx((w - 1).square().mean().item())
    assert found.renyi2 == pytest.approx(math.log1p(found.chi_square))
    assert found.kl_from_behaviour == pytest.approx((w - 1 - log_weights).mean().item())
    assert found.kl_from_target == pytest.approx((w * log_weights - w + 1).mean().item())


def test_weights_of_one():
    found = read(weight_health(torch.zeros(50))).total
    assert found.effective_sample_size == pytest.approx(50.0)
    assert (found.mean, found.k_hat) == (pytest.approx(1.0), -math.inf)
    for x in (found.chi_square, found.renyi2, found.kl_from_behaviour, found.kl_from_target):
        assert x == pytest.approx(0.0, abs=1e-12)


def test_divergences_of_two_policies_from_their_samples():
    """Exact where the batch holds every action as often as the behaviour takes it."""
    p, q = (torch.tensor([x], dtype=torch.float64).log() for x in ([0.5, 0.5], [0.75, 0.25]))
    found = read(weight_health((p - q)[0, torch.tensor([0, 0, 0, 1])])).total
    kl = torch.distributions.kl_divergence
    p, q = (torch.distributions.Categorical(logits=x) for x in (p, q))
    assert found.mean == pytest.approx(1.0)
    assert found.kl_from_target == pytest.approx(kl(p, q).item())
    assert found.kl_from_behaviour == pytest.approx(kl(q, p).item())
    assert found.chi_square == pytest.approx(0.25 / 0.75 + 0.25 / 0.25 - 1)


@pytest.mark.parametrize("size", [1e-9, 1e-4, 0.5, 1.5, 30.0, 690.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_divergences_do_not_cancel(size, sign):
    x = sign * size
    found = read(weight_health(torch.tensor([x], dtype=torch.float64))).total
    # e^x - 1 - x as a series, where it would cancel.
    excess = [
        x**2 / 2 * (1 + x / 3) if size < 1e-3 else math.expm1(x) - x,
        x**2 / 2 * (1 + 2 * x / 3) if size < 1e-3 else math.exp(x) * (x - 1) + 1,
    ]
    assert found.kl_from_behaviour == pytest.approx(excess[0], rel=1e-3, abs=1e-15)
    assert found.kl_from_target == pytest.approx(excess[1], rel=1e-3, abs=1e-15)


def test_extreme_weights_are_read_without_overflow():
    found = read(weight_health(torch.tensor([1e4, 0.0, -1e4, -torch.inf]))).total
    assert (found.mean, found.maximum, found.chi_square) == (math.inf, math.inf, math.inf)
    assert found.effective_sample_size == pytest.approx(1.0)
    assert found.top_shares[1] == pytest.approx(1.0)
    assert found.renyi2 == pytest.approx(2e4 - math.log(4))
    assert found.kl_from_behaviour == math.inf
    assert found.quantiles[0.5] == 0.0
    found = read(weight_health(torch.tensor([-1e4]))).total
    assert found.kl_from_behaviour == pytest.approx(1e4 - 1)
    assert found.kl_from_target == pytest.approx(1.0)
    # Nothing saturates: a ratio of e^45 has a square of e^90.
    found = read(weight_health(torch.tensor([45.0]))).total
    assert found.chi_square == pytest.approx(math.exp(90), rel=1e-9)


def test_weights_of_zero_and_none():
    found = read(weight_health(torch.full((3,), -torch.inf))).total
    assert (found.sample_size, found.mean, found.effective_sample_size) == (3, 0.0, 0.0)
    assert (found.chi_square, found.kl_from_target) == (1.0, 1.0)
    found = read(weight_health(torch.zeros(0))).total
    assert (found.sample_size, found.effective_sample_size) == (0, 0.0)
    assert math.isnan(found.mean) and math.isnan(found.quantiles[0.5])
    assert found.ess_share == 0.0 and found.k_hat == math.inf


def test_what_is_undefined_is_counted_and_nothing_else():
    log_weights = torch.tensor([0.3, torch.nan, -0.2, torch.inf, -torch.inf])
    found = weight_health(log_weights, magnitudes=torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert found.undefined.tolist() == [2]
    kept = torch.tensor([0, 2, 4])
    want = weight_health(log_weights[kept], magnitudes=torch.tensor([1.0, 3.0, 5.0]))
    same(found._replace(undefined=want.undefined), want)
    # Neither does a magnitude that is infinite, where the weight is 0.
    found = weight_health(log_weights[kept], magnitudes=torch.tensor([1.0, 3.0, torch.inf]))
    same(found, want)


@few
@given(lengths=ragged_lengths, seed=seeds)
def test_a_masked_step_does_not_count(lengths, seed):
    packed = ragged(lengths, seed)
    moved, _ = scatter(packed, seed)
    group = torch.arange(len(lengths)) % 3
    records = [
        diagnostics.step_health(b.advantages, b.segments, group=group[b.segments.episode], groups=3)
        for b in (moved, packed)
    ]
    same(*records)
    found = diagnostics.episode_health(moved.advantages, moved.segments, group=group, groups=3)
    last = packed.segments.last(packed.advantages)
    same(found, weight_health(last, group=group, groups=3))


@pytest.mark.parametrize("keep", [3, 4096])
def test_parts_merge_into_the_whole(keep):
    log_weights, f, group = normal(300, 3, 3.0), normal(300, 4), torch.arange(300) % 3
    log_weights[7], log_weights[8] = torch.nan, -torch.inf
    cuts = [slice(0, 1), slice(1, 120), slice(120, 120), slice(120, 300)]

    def record(at):
        return weight_health(
            log_weights[at], group=group[at], groups=4, magnitudes=f[at], keep=keep
        )

    whole, parts = record(slice(None)), [record(at) for at in cuts]
    merge = WeightHealth.merge
    same(reduce(merge, parts), whole)
    same(reduce(merge, parts[::-1]), whole)
    same(merge(merge(parts[0], parts[1]), merge(parts[2], parts[3])), whole)
    pooled = weight_health(log_weights, magnitudes=f, keep=keep)
    same(whole.pooled(), pooled)
    by_group = read(whole, top=(1,))
    alike(by_group.total, read(pooled, top=(1,)).total)
    for g in range(3):
        alone = weight_health(log_weights[group == g], magnitudes=f[group == g], keep=keep)
        alike(by_group.groups[g], read(alone, top=(1,)).total)
    assert sum(by_group.weight_shares) == pytest.approx(1.0)
    of_first = log_weights[group == 0].exp().sum() / log_weights.exp().nansum()
    assert by_group.weight_shares[0] == pytest.approx(of_first.item())
    assert (by_group.groups[3].sample_size, by_group.weight_shares[3]) == (0, 0.0)


def test_parts_that_do_not_belong_together():
    one = weight_health(torch.zeros(2))
    with pytest.raises(ValueError, match=r"\[1, 4096\] and \[2, 4096\]: pass every part the same"):
        one.merge(weight_health(torch.zeros(2), groups=2))
    with pytest.raises(ValueError, match=r"\[1, 4096\] and \[1, 8\]"):
        one.merge(weight_health(torch.zeros(2), keep=8))


def test_quantiles_beyond_the_kept_weights_come_from_the_histogram():
    log_weights = normal(5000, 5, 2.0)
    log_weights[:100] = -50.0
    quantiles = (0.01, 0.02, 0.03, 0.2, 0.5, 0.9, 0.99, 1.0)
    exact = read(weight_health(log_weights), quantiles=quantiles).total.quantiles
    coarse = read(weight_health(log_weights, keep=8), quantiles=quantiles, top=()).total.quantiles
    assert exact[0.01] == exact[0.02] == pytest.approx(math.exp(-50)) and coarse[0.02] == 0.0
    for q in quantiles[2:]:
        assert abs(math.log(coarse[q] / exact[q])) <= diagnostics.health.BIN_WIDTH / 2 + 1e-9
    assert coarse[1.0] == exact[1.0] == pytest.approx(log_weights.max().exp().item())


def test_k_hat_is_exact_while_its_tail_is_kept():
    log_weights = normal(1000, 6, 2.0)
    want = weights.pareto_k(log_weights).item()
    assert read(weight_health(log_weights, keep=95)).total.k_hat == pytest.approx(want)
    shorter = read(weight_health(log_weights, keep=40)).total.k_hat
    assert shorter != want and math.isfinite(shorter)


def test_an_effective_sample_size_after_truncation_says_nothing():
    """256 answers of 200 tokens whose log-ratios have deviation .3: about 6 of 256 count."""
    g = torch.Generator().manual_seed(0)
    segments = Segments.packed([200] * 256)
    log_ratios = 0.3 * torch.randn(256 * 200, generator=g, dtype=torch.float64)
    whole = weights.trajectory(log_ratios, segments)
    bounded = weights.truncate(whole, segments, maximum=2.0).log_weights
    raw, after = (read(diagnostics.episode_health(x, segments)) for x in (whole, bounded))
    kish = whole[::200].softmax(0).square().sum().reciprocal() / 256
    assert raw.total.ess_share == pytest.approx(kish.item())
    assert raw.total.ess_share < 0.04 < 0.4 < after.total.ess_share
    # Pooled over tokens a truncated weight counts 200 times and the share stays as wrong.
    tokens = read(diagnostics.step_health(bounded, segments))
    assert tokens.total.ess_share == pytest.approx(after.total.ess_share)


def test_a_long_episode_counts_once():
    segments = Segments.packed([1000, 1])
    log_weights = torch.tensor([0.0] * 1000 + [math.log(2)])
    episodes = read(diagnostics.episode_health(log_weights, segments)).total
    steps = read(diagnostics.step_health(log_weights, segments)).total
    assert episodes.ess_share == pytest.approx(0.9) and steps.ess_share > 0.998
    assert (episodes.sample_size, steps.sample_size) == (2, 1001)


def test_with_one_step_an_episode_they_are_the_same():
    b = ragged([1] * 30, 7)
    same(
        diagnostics.episode_health(b.ratios, b.segments),
        diagnostics.step_health(b.ratios, b.segments),
    )


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: weight_health(torch.zeros(2, 2)), r"log_weights must have shape \[4\]"),
        (lambda: weight_health(torch.zeros(2), groups=0), "groups must be an integer of at least"),
        (lambda: weight_health(torch.zeros(2), keep=0), "keep must be an integer of at least 1"),
        (lambda: weight_health(torch.zeros(2), group=torch.zeros(3)), r"group must have shape"),
        (lambda: weight_health(torch.zeros(2), magnitudes=torch.zeros(3)), "magnitudes must have"),
        (lambda: weight_health(torch.zeros(2), counted=torch.zeros(2)), "counted must be bool"),
        (lambda: read(weight_health(torch.zeros(2)), quantiles=[0.0]), "quantiles must lie in"),
        (lambda: read(weight_health(torch.zeros(2), keep=2), top=[3]), "the share of 3 weights"),
        (
            lambda: diagnostics.step_health(torch.zeros(3), Segments.packed([2])),
            r"log_weights must have shape \[2\]",
        ),
        (
            lambda: diagnostics.episode_health(torch.zeros(3), Segments.packed([2])),
            r"log_weights must have shape \[2\]",
        ),
    ],
)
def test_refuses_with_the_users_values(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def advice(log_weights, **given):
    health = {k: given.pop(k) for k in ("group", "groups", "magnitudes") if k in given}
    return diagnostics.advice(read(weight_health(log_weights, **health)), **given)


def test_healthy_weights_ask_for_nothing():
    log_weights = normal(500, 8, 0.1)
    (sentence,) = advice(log_weights, unit="episodes")
    assert sentence.startswith("The effective sample size is 49") and sentence.endswith(" %).")
    assert "of 500 episodes" in sentence


def test_few_weights_are_no_doubt_while_they_are_even():
    even, uneven = (read(weight_health(normal(40, 8, scale))).total for scale in (0.1, 1.5))
    assert diagnostics.doubts(even, unit="episodes") == ()
    assert uneven.effective_sample_size < 28
    doubts = diagnostics.doubts(uneven, unit="episodes")
    assert any(x.startswith("The effective sample size is") for x in doubts)


def test_policies_that_have_no_say():
    group = torch.arange(500) % 5
    log_weights = normal(500, 8, 0.1)
    log_weights[group >= 3] -= 6.0
    *_, sentence = advice(log_weights, group=group, groups=5, unit="episodes")
    assert sentence == (
        "Policies 3 and 4 gave 40 % of the episodes and carry 0.162 % of the weight: drop them, or "
        "collect nearer the target."
    )
    *_, sentence = advice(
        torch.where(group == 3, 0.0, log_weights), group=group, groups=5, names="abcde"
    )
    assert sentence.startswith("Policy e gave 20 % of the weights and carries 0.0")
    # Few episodes are no reason: each has its share.
    group = (torch.arange(500) == 0).long()
    assert len(advice(normal(500, 8, 0.1), group=group, groups=2)) == 1
    raw = read(weight_health(torch.zeros(2)))
    with pytest.raises(ValueError, match="names has 2 names for 1 groups"):
        diagnostics.advice(raw, names="ab")


def test_log_probabilities_that_do_not_belong_together():
    expected = "The mean weight is"
    assert any(x.startswith(expected) for x in advice(normal(500, 8, 0.1) - 0.1))
    assert any(x.startswith(expected) for x in advice(normal(500, 8, 0.1) + 0.1))
    # However uneven, weights do not average far above 1.
    assert any(x.startswith(expected) for x in advice(normal(5000, 8, 1.2) - 0.72 + 1.0))
    # Within the tolerance; and a heavy tail is below 1 without anything being wrong.
    assert not any(x.startswith(expected) for x in advice(normal(500, 8, 0.001) - 0.005))
    assert not any(x.startswith(expected) for x in advice(normal(500, 8, 3.0) - 4.5))


def test_a_heavy_tail():
    sentences = advice(normal(500, 8, 4.0))
    assert any("a weighted mean is about as noisy" in x for x in sentences)
    (tail,) = [x for x in sentences if x.startswith("k-hat is")]
    assert "above 0.63, the limit for 500 weights" in tail
    (largest,) = [x for x in advice(torch.tensor([5.0, 0.0, 0.0])) if "carries" in x]
    assert largest == "The largest weight, 148, carries 98.7 % of the total."
    assert any("cannot be judged" in x for x in advice(normal(10, 8)))


def test_what_cannot_be_used():
    first, *_ = advice(torch.tensor([0.0, torch.nan, 0.1, 0.0]))
    assert first.startswith("1 of 4 weights have a weight that is NaN or infinite")
    assert advice(torch.zeros(0)) == ("There are no weights to speak of.",)


def test_a_gradient_of_few_terms():
    even = torch.zeros(100)
    f = torch.ones(100)
    f[0] = 100.0
    (sentence,) = [x for x in advice(even, magnitudes=f) if "gradient" in x]
    assert "is 3.92 where that of the weights is 100" in sentence
    assert len(advice(even, magnitudes=torch.ones(100))) == 1


def test_what_a_bound_cost():
    segments = Segments.packed([1] * 400)
    log_weights = normal(400, 9, 1.5) - 1.5**2 / 2
    raw = read(weight_health(log_weights))
    for maximum, end in ((2.0, "what it cut is bias."), (math.inf, "")):
        bounded = weights.truncate(log_weights, segments, maximum=maximum).log_weights
        after = read(weight_health(bounded))
        *_, sentence = diagnostics.advice(raw, bounded=after)
        assert sentence.startswith("Bounding took the effective sample size from ")
        assert f"to {100 * after.total.ess_share:.3g} % and the mean weight from" in sentence
        assert sentence.endswith(end) and (": what it cut" in sentence) == bool(end)


def test_ranks_merge_into_the_whole(monkeypatch):
    log_weights = normal(60, 10, 2.0)
    parts = [weight_health(x) for x in log_weights.split([20, 40])]

    def gather(into, own, group=None):
        assert (own is not parts[0]) and group is None
        into[:] = parts

    monkeypatch.setattr(torch.distributed, "get_world_size", lambda group: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    same(merge_over_ranks(parts[0]), weight_health(log_weights))


def test_one_rank_is_the_whole(tmp_path):
    own = weight_health(normal(60, 10, 2.0))
    sums = weights.log_sums(normal(6, 10, 2.0), Segments.packed([4, 2]))
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    same(merge_over_ranks(own), own)
    torch.testing.assert_close(merge_over_ranks(sums), sums)
    totals = EpisodeTotals(*normal(9, 11).reshape(3, 3))
    torch.testing.assert_close(merge_over_ranks(totals), totals)
    torch.distributed.destroy_process_group()


def test_totals_of_episodes_add_up():
    first, second = (EpisodeTotals(*normal(6, seed).reshape(3, 2)) for seed in (12, 13))
    for merged, x, y in zip(first.merge(second), first, second, strict=True):
        torch.testing.assert_close(merged, x + y)
    other = EpisodeTotals(*normal(9, 14).reshape(3, 3))
    with pytest.raises(ValueError, match="the parts have 2 and 3 episodes"):
        first.merge(other)
