"""Pareto smoothing."""

TESTS = ["test_core_psis.py"]

MUTATIONS = [
    ("core/weights/psis.py", "count // 5 if count <= 225", "count // 5 if count <= 200"),
    ("core/weights/psis.py", "math.isqrt(9 * count)", "3 * math.isqrt(count)"),
    ("core/weights/psis.py", "_LEAST_TAIL = 5", "_LEAST_TAIL = 4"),
    ("core/weights/psis.py", "ordered[..., -length - 1]", "ordered[..., -length]"),
    ("core/weights/psis.py", "(rank + 0.5) / length", "rank / length"),
    ("core/weights/psis.py", "quantile.log().clamp(max=0.0)", "quantile.log()"),
    ("core/weights/psis.py", "torch.where(k.isfinite(), fitted, tail)", "fitted"),
    ("core/weights/psis.py", "(length * raw + 5) / (length + 10)", "raw"),
    (
        "core/weights/psis.py",
        "k_hat = torch.where(possible, k_hat, torch.inf)",
        "k_hat = torch.where(possible, k_hat, -torch.inf)",
    ),
    ("core/weights/psis.py", "possible = quartile > _LEAST_EXCEEDANCE", "possible = quartile >= 0"),
    ("core/weights/psis.py", "<= _ROUNDING", "< 0"),
    ("core/weights/psis.py", "torch.where(grid == 0, 1 / exceedance.mean(-1, keepdim=True), ", "("),
    ("core/weights/psis.py", "(tail - highest.unsqueeze(-1)).exp()", "tail.exp()"),
    (
        "core/weights/psis.py",
        "largest[..., :length].flip(-1), largest[..., length]",
        "largest[..., :length].flip(-1), largest[..., length - 1]",
    ),
]
