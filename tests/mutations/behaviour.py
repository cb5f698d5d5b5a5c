"""The behaviour estimated from a log, and the policies that logs need."""

TESTS = ["test_behaviour_*.py"]

CALIBRATING = "behaviour/calibrating.py"
CALIBRATION = "behaviour/calibration.py"
NETWORKS = "behaviour/networks.py"
TABLES = "behaviour/tables.py"

MUTATIONS = [
    ("acting/tabular.py", "value=-torch.inf", "value=0.0"),
    ("acting/tabular.py", "flip(0).cumprod(0).flip(0) // counts", "cumprod(0) // counts"),
    ("acting/tabular.py", "(numbers < 0) | ", ""),
    ("acting/standardised.py", "self.action_deviation * inner.scale", "inner.scale"),
    ("acting/standardised.py", "observations.double() -", "observations.float() -"),
    ("acting/standardised.py", "torch.where(deviation > 0, deviation, 1.0)", "deviation"),
    ("data/episodes.py", "stream=DRAWS", "stream=FOLDS"),
    ("behaviour/survey.py", "if k != fold)", "if True)"),
    ("behaviour/survey.py", "away**2 * share * self.size", "away**2 * share"),
    ("behaviour/survey.py", "if used < 2:", "if used < 1:"),
    (TABLES, "*(total - own for own in times), total", "*(total for own in times), total"),
    (TABLES, "smoothed = part + smoothing", "smoothed = part + 1.0"),
    (TABLES, "/ (seen + smoothing) for n", "/ (seen + smoothing * n) for n"),
    (TABLES, "survey.negative is not None:\n        return None", "False:\n        return None"),
    (NETWORKS, "steps.fold != fit.without))\n        for", "steps.fold >= 0))\n        for"),
    (NETWORKS, "judging.fold != fit.without", "judging.fold >= 0"),
    (NETWORKS, "survey.actions(without=without)", "survey.actions(without=-1)"),
    (
        NETWORKS,
        "_stream(material, held_out, held_out + keep",
        "_stream(material, 0.0, held_out + keep",
    ),
    (NETWORKS, "keep * (1 - held_out)", "(1 - held_out)"),
    (NETWORKS, "self.policy.load_state_dict(self.best)", "pass"),
    (NETWORKS, "            torch.manual_seed(seed)\n", ""),
    (NETWORKS, "generator=self.generator)", ")"),
    ("behaviour/estimate.py", "mine = steps[fold[steps] == k]", "mine = steps"),
    ("behaviour/estimate.py", "min(MOST_CELLS, material.survey.steps)", "MOST_CELLS"),
    (CALIBRATING, "fitted.policies[k], t.observations", "fitted.policies[-1], t.observations"),
    (CALIBRATING, "- survey.taken[k] + 0.5", "+ 0.5"),
    (CALIBRATING, "own.size * (own.mean - others.mean) ** 2", "0.0"),
    (CALIBRATING, "self.expected += variances.T @ variances", "self.expected += 1.0"),
    (CALIBRATING, "recorded - corrected]", "corrected - recorded]"),
    (CALIBRATION, "b.observed / b.predicted if", "b.predicted / b.observed if"),
    (CALIBRATION, "gap * self.steps / self.episodes", "gap"),
    (CALIBRATION, "1 / n.deviation:.2g", "n.deviation:.2g"),
]
