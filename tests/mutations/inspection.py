"""What is in a log."""

TESTS = ["test_evaluation_inspection.py", "test_report_inspection.py"]

FILE = "evaluation/inspection.py"
REPORT = "report/inspection.py"

MUTATIONS = [
    (FILE, "ddof=1", "ddof=0"),
    (FILE, "(self.time_start == 0) & (", "("),
    (FILE, "(self.terminated | self.truncated)", "self.terminated"),
    (FILE, "unfinished = ~(e.terminated | e.truncated)", "unfinished = ~e.terminated"),
    (FILE, "e.lengths[unfinished]", "e.lengths[e.whole]"),
    (FILE, "e.truncated & ~e.terminated", "~e.terminated"),
    (FILE, "e.returns[e.whole]", "e.returns"),
    (FILE, "e.lengths[e.whole]) if", "e.lengths) if"),
    (FILE, "(e.time_start > 0)", "(e.time_start >= 0)"),
    (FILE, "_Weights(*map(WeightHealth.merge, weights, part))", "weights"),
    (FILE, "counted=torch.from_numpy(whole)", "counted=None"),
    (FILE, "group=group, groups", "group=group * 0, groups"),
    (FILE, "if log.schema.behaviour == MISSING", "if False"),
    (FILE, "if steps == 0:", "if False:"),
    (FILE, "require_choices(policy, log.schema)", "pass"),
    (REPORT, "len(versions) - 1) / max(rows - 1, 1)", "len(versions) - 2) / max(rows - 1, 1)"),
    (REPORT, "elif inspection.schema.estimated", "elif False"),
    (REPORT, "if inspection.without_start:", "if False:"),
    (REPORT, '"ess_share": reading.ess_share', '"ess_share": reading.mean'),
    (REPORT, "sorted({min(versions.values()), max", "sorted({0, max"),
]
