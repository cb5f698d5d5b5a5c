"""Importance weights."""

TESTS = ["test_core_*.py", "test_recipes.py"]

MUTATIONS = [
    (
        "core/weights/scopes.py",
        "prefix_sum(step(log_ratios, segments), segments) +",
        "prefix_sum(step(log_ratios, segments), segments) - log_ratios +",
    ),
    ("core/weights/scopes.py", "segments) + segments.spread(start)", "segments)"),
    ("core/weights/scopes.py", "segments)) + start)", "segments)))"),
    ("core/weights/bounds.py", "log_weights.clamp(max=limit)", "log_weights.clamp(min=limit)"),
    (
        "core/weights/bounds.py",
        "log_weights.clamp(max=limit)",
        "log_weights.exp().clamp(max=maximum).log()",
    ),
    ("core/weights/bounds.py", "segments.inside & (log_weights > limit)", "log_weights > limit"),
    ("core/weights/normalise.py", " - math.log(len(segments))", ""),
    ("core/weights/normalise.py", "torch.where(log_mean == -torch.inf, 0.0, log_mean)", "log_mean"),
    ("core/weights/normalise.py", "torch.logaddexp(alive, ended.logcumsumexp(0)[:times])", "alive"),
    ("core/weights/normalise.py", "ended.logcumsumexp(0)[:times]", "ended[:times]"),
    ("core/weights/normalise.py", "shifted = (x - highest[group]).exp()", "shifted = x.exp()"),
    ("core/weights/normalise.py", "highest = torch.where(highest == -torch.inf, 0.0, highest)", ""),
    (
        "core/weights/mixtures.py",
        "segments.fill(target - _log_mix",
        "segments.fill(target + _log_mix",
    ),
    (
        "core/weights/mixtures.py",
        "log_probs + proportions.double().log().unsqueeze(1)",
        "log_probs",
    ),
    (
        "core/weights/scopes.py",
        'if segments.has_fragments:\n        raise ValueError(\n            "log',
        'if False:\n        raise ValueError(\n            "log',
    ),
]
