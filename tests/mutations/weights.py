"""Importance weights."""

TESTS = [
    "test_core_scopes.py",
    "test_core_bounds.py",
    "test_core_normalise.py",
    "test_core_sums.py",
    "test_core_mixtures.py",
    "test_core_support.py",
    "test_core_segments.py",
]

SCOPES = "core/weights/scopes.py"
BOUNDS = "core/weights/bounds.py"
SUMS = "core/sums.py"
NORMALISE = "core/weights/normalise.py"
MIXTURES = "core/weights/mixtures.py"
SUPPORT = "core/support.py"

MUTATIONS = [
    (SCOPES, "prefix_sum(step(log_ratios, segments), segments) +", "step(log_ratios, segments) +"),
    (SCOPES, "segments) + segments.spread(start)", "segments)"),
    (SCOPES, "segments)) + start)", "segments)))"),
    (SCOPES, "segments.previous(ratios, torch.zeros_like(start))", "ratios"),
    (SCOPES, "return earlier + segments.spread(start)", "return earlier"),
    (SCOPES, "total / segments.lengths.clamp(min=1)", "total"),
    (SCOPES, "turns.spread(turns.last(so_far))", "so_far"),
    (SCOPES, "segments.age.clamp(max=steps - 1)", "segments.age.clamp(max=steps)"),
    (SCOPES, "return begins + window", "return log_state_ratios + window"),
    (SCOPES, "if segments.has_fragments:", "if False:"),
    ("core/scan.py", "age >= covered", "age >= 0"),
    ("core/scan.py", "torch.where(age >= stride, window.roll(stride), 0.0)", "window.roll(stride)"),
    ("core/scan.py", "if steps & stride:", "if steps >= stride:"),
    ("core/segments.py", "begins[1:] |= label", "begins[1:] &= label"),
    ("core/segments.py", "begins = self.age == 0", "begins = self.age < 0"),
    (BOUNDS, "log_weights.clamp(low, high)", "log_weights.clamp(max=high)"),
    (BOUNDS, "log_weights.clamp(low, high)", "log_weights.exp().clamp(minimum, maximum).log()"),
    (BOUNDS, "(log_weights < low) | (log_weights > high)", "log_weights > high"),
    (BOUNDS, "math.log1p(-leak) + math.log(maximum)", "math.log(leak) + math.log(maximum)"),
    (BOUNDS, "torch.where(over, leaked, truncated)", "leaked"),
    (BOUNDS, "(log_weights >= low) & (log_weights <= high)", "log_weights <= high"),
    (BOUNDS, "log_weights >= low) & (", "log_weights > low) & ("),
    (BOUNDS, "log_weights + mean / exponent", "mean / exponent"),
    (BOUNDS, "share.log() - exponent * log_weights", "share.log() + exponent * log_weights"),
    (BOUNDS, "torch.where(only_one, 0.0, ", "torch.where(only_one, log_weights, "),
    (BOUNDS, "(-below.expm1()).log()", "(1 - below.exp()).log()"),
    (BOUNDS, "segments.total((~believed).double()) > 0", "(~believed).double() > 0"),
    (BOUNDS, "(log_ratios >= low) & (log_ratios <= high)", "(log_ratios >= low)"),
    (
        BOUNDS,
        "log_weights.masked_fill(rejected, -torch.inf)",
        "log_weights.masked_fill(rejected, 0)",
    ),
    (BOUNDS, "touched = segments.inside & touched", ""),
    (NORMALISE, " - sums.episodes.clamp(min=1).log().unsqueeze(1)", ""),
    (NORMALISE, "torch.where(log_mean == -torch.inf, 0.0, log_mean)", "log_mean"),
    (NORMALISE, "_log_add(alive.reshape(groups, times), since)", "alive.reshape(groups, times)"),
    (
        NORMALISE,
        "_log_cumulative_sum(ended.reshape(groups, times + 1))",
        "ended.reshape(groups, times + 1)",
    ),
    (SUMS, "(x - largest.gather(-1, group)).exp()", "x.exp()"),
    (NORMALISE, "log_weights.masked_fill(~segments.inside, -torch.inf)", "log_weights"),
    (NORMALISE, "log_sum[:, -1:].expand", "(log_sum[:, -1:] - torch.inf).expand"),
    (NORMALISE, "self.episodes + other.episodes", "self.episodes"),
    (NORMALISE, "log_mean[group[segments.episode], segments.time]", "log_mean[0, segments.time]"),
    (MIXTURES, "segments.fill(target - mixed)", "segments.fill(target + mixed)"),
    (BOUNDS, "overflows & (x == 0)", "overflows & (x != x)"),
    (SUMS, "torch.where(x > 0, torch.where(x > 0, x, 1.0).log(), -torch.inf)", "x.log()"),
    (MIXTURES, "log_probs + proportions.double().log().unsqueeze(1)", "log_probs"),
    (MIXTURES, "segments.spread(segments.last(balanced))", "balanced"),
    (MIXTURES, "schedules[:, segments.time]", "schedules[:, segments.offset]"),
    (MIXTURES, "proportions.double() * (1 - share)", "proportions.double()"),
    (MIXTURES, "3 * sum(episodes) * moments", "3 * moments"),
    (MIXTURES, "moments.rsqrt() / moments.rsqrt().sum()", "moments.sqrt() / moments.sqrt().sum()"),
    (MIXTURES, "math.ceil(3 * mean_age - 1) - 1", "math.ceil(3 * mean_age)"),
    (MIXTURES, "min(0.0, mean_age - middle)", "mean_age - middle"),
    (SUPPORT, "mass.cumsum(-1) - mass < p", "mass.cumsum(-1) < p"),
    (SUPPORT, "& (mass > 0)", ""),
    (SUPPORT, "values[..., -1:]", "values[..., :1]"),
    (SUPPORT, "scaled.masked_fill(~support, -torch.inf)", "scaled"),
    (SUPPORT, ".float()) / temperature", ".float())"),
]
