"""Objectives."""

TESTS = ["test_core_*.py", "test_recipes.py"]

MUTATIONS = [
    ("core/surrogates/weighted.py", "coefficient = coefficient.detach()", ""),
    ("core/surrogates/weighted.py", "torch.where(coefficient == 0, 0.0, log_prob)", "log_prob"),
    ("core/surrogates/clipped.py", "advantages < 0,", "advantages > 0,"),
    ("core/surrogates/clipped.py", "advantages < 0,", "advantages <= 0,"),
    ("core/surrogates/clipped.py", "torch.where(low, floor, log_ratios)", "log_ratios"),
    ("core/surrogates/clipped.py", "torch.where(high, ceiling, log_ratios)", "log_ratios"),
    ("core/surrogates/clipped.py", '"advantages", advantages.detach()', '"advantages", advantages'),
    ("core/surrogates/clipped.py", "log_centre.detach()", "log_centre"),
]
