"""Advantages, value targets, baselines, and the recurrences that they share."""

TESTS = [
    "test_core_returns.py",
    "test_core_traces.py",
    "test_core_action_values.py",
    "test_core_groups.py",
    "test_core_baselines.py",
    "test_core_scan.py",
]

MUTATIONS = [
    ("core/advantages/multistep.py", "discount * trace_lambda", "trace_lambda"),
    ("core/advantages/multistep.py", "+ times(discount, following)", "+ following"),
    ("core/advantages/multistep.py", "@torch.no_grad()\ndef gae", "def gae"),
    ("core/scan.py", "times(discount, times(trace_lambda, decay))", "times(discount, decay)"),
    ("core/advantages/traces.py", 'segments.as_float64("log_cs", log_cs)', "log_rhos"),
    ("core/scan.py", "(log_weights - log_scale).exp() * x", "x"),
    ("core/advantages/traces.py", "targets = v + unscale", "targets = unscale"),
    ("core/scan.py", "times(discount, times(trace_lambda, decay))", "times(trace_lambda, decay)"),
    ("core/scan.py", "log_weights.detach().clamp(min=0.0)", "0 * log_weights.detach()"),
    ("core/scan.py", "log_decay.detach() + log_factor", "log_decay.detach()"),
    (
        "core/advantages/traces.py",
        "one_step(rewards, targets, bootstrap",
        "one_step(rewards, values, bootstrap",
    ),
    ("core/advantages/traces.py", "segments.next(log_scale, final) + log_rhos", "log_rhos"),
    ("core/advantages/traces.py", "torch.where(delta == 0, 0.0, log_rhos.exp() * delta)", "delta"),
    ("core/advantages/traces.py", "times(discount, later)", "discount * later"),
    ("core/scan.py", "torch.zeros_like(x) if factor == 0 else factor * x", "factor * x"),
    ("core/advantages/traces.py", "@torch.no_grad()\ndef vtrace", "def vtrace"),
    ("core/returns.py", "unscale(scaled, log_scale + log_ratios)", "unscale(scaled, log_scale)"),
    (
        "core/returns.py",
        "unscale(scaled, log_scale + log_ratios)",
        "unscale(scaled, log_scale) * log_ratios.exp()",
    ),
    ("core/scan.py", "log_decay.detach() + log_factor", "-1e9 + log_decay.detach()"),
    (
        "core/returns.py",
        "later = segments.next(log_ratios,",
        "later = 0 * segments.next(log_ratios,",
    ),
    ("core/scan.py", "log_decay + later_scale - log_scale", "log_decay"),
    (
        "core/returns.py",
        'unexplained - segments.as_float64("action_values", action_values)',
        "unexplained - values",
    ),
    ("core/advantages/action_values.py", "log_cs) + log_lambda", "log_cs)"),
    ("core/advantages/action_values.py", "maximum=1.0", "maximum=2.0"),
    (
        "core/advantages/action_values.py",
        "torch.where(greedy, 0.0, -torch.inf)",
        "torch.where(greedy, -torch.inf, 0.0)",
    ),
    (
        "core/advantages/action_values.py",
        'segments.as_float64("action_values", action_values) + residuals',
        "values + residuals",
    ),
    (
        "core/advantages/groups.py",
        "torch.where(kept, returns - least[group], 0.0)",
        "returns - least[group]",
    ),
    ("core/advantages/groups.py", "_total(kept.double(), group", "_total(0 * returns + 1, group"),
    (
        "core/advantages/groups.py",
        "torch.where(kept, above - mean[group], 0.0)",
        "above - mean[group]",
    ),
    (
        "core/advantages/groups.py",
        "variance = _total(centred.square(), group, groups) / (count - 1)",
        "variance = _total(centred.square(), group, groups) / count",
    ),
    ("core/advantages/groups.py", "returns - least[group], 0.0", "returns, 0.0"),
    ("core/advantages/groups.py", "centred * (count / (count - 1).clamp(min=1))[group]", "centred"),
    ("core/advantages/multistep.py", "log_weights.exp() * baseline", "baseline"),
    (
        "core/advantages/multistep.py",
        "torch.where(zero, 0.0, log_weights.exp()",
        "(log_weights.exp()",
    ),
]
