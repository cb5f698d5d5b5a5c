"""Segments, scan, ratios, returns and contracts."""

TESTS = [
    "test_core_segments.py",
    "test_core_scan.py",
    "test_core_ratios.py",
    "test_core_bounds.py",
    "test_core_returns.py",
    "test_core_scopes.py",
    "test_core_mixtures.py",
    "test_recipes.py",
]

MUTATIONS = [
    (
        "core/segments.py",
        "index_fill(0, self._cover[0], True) & self.mask",
        "index_fill(0, self._cover[0], True)",
    ),
    (
        "core/segments.py",
        "torch.zeros_like(self.mask).index_fill(0, self._cover[0], True) & self.mask",
        "self.mask",
    ),
    ("core/segments.py", "return torch.where(self.inside, x, value)", "return x * self.inside"),
    ("core/segments.py", "(self.time_start - so_far[self.start])", "(-so_far[self.start])"),
    ("core/segments.py", "(self.time_start - so_far[self.start])", "self.time_start"),
    (
        "core/segments.py",
        "torch.cat([self.start.new_zeros(1), self.inside.cumsum(0)])",
        "torch.arange(self.size + 1)",
    ),
    (
        "core/segments.py",
        "torch.where(self.is_last, final[self.episode], x[self._neighbours[1]])",
        "x[self._neighbours[1]]",
    ),
    ("core/segments.py", "self.stop[owner] - 1 - positions", "self.stop[owner] - positions"),
    ("contracts.py", "occupied = occupied[start[occupied].argsort()]", ""),
    ("core/scan.py", "segments.offset >= stride", "segments.offset >= 0"),
    ("core/scan.py", "segments.offset >= stride", "segments.offset > stride"),
    ("core/scan.py", "segments.remaining >= stride", "segments.remaining > stride"),
    ("core/scan.py", "torch.where(reaches, value.roll(-stride), 0.0)", "value.roll(-stride)"),
    (
        "core/scan.py",
        "later = torch.where(reaches, value.roll(-stride), 0.0)",
        "later = value.roll(-stride) * reaches",
    ),
    ("core/scan.py", "a.masked_fill(segments.is_last, 0.0)", "a"),
    ("core/scan.py", "0.0), 1.0)", "0.0))"),
    ("core/scan.py", "while stride < length", "while stride * 2 < length"),
    ("core/ratios.py", "return target - checked", "return -target + checked"),
    ("core/ratios.py", "log_prob_behaviour, segments).detach()", "log_prob_behaviour, segments)"),
    ("core/ratios.py", "~(log_prob < torch.inf)", "log_prob.isnan()"),
    ("core/ratios.py", "behaviour == -torch.inf", "behaviour.isnan()"),
    (
        "core/ratios.py",
        "segments.time[first] - segments.time_start[episode]",
        "segments.time[first]",
    ),
    ("core/returns.py", "rewards + discount * segments.next", "rewards + segments.next"),
    ("core/returns.py", "weigh(log_weights, rewards)", "rewards"),
    (
        "core/returns.py",
        "torch.full_like(rewards, discount), segments",
        "torch.ones_like(rewards), segments",
    ),
    (
        "core/returns.py",
        "discount ** segments.time.double()",
        "discount ** segments.offset.double()",
    ),
    (
        "contracts.py",
        "log_prob.dtype not in (float32, float64)",
        "log_prob.dtype not in (float32, float64, as_tensor(0).half().dtype)",
    ),
    ("contracts.py", "if not value > 0", "if value < 0"),
    ("contracts.py", "(x >= 0).all()", "(x >= -9).all()"),
]
