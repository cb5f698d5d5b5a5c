"""What a person sees of learning from a log."""

TESTS = ["test_report_learning.py"]

DISPLAY = "report/learning_display.py"
SUMMARY = "report/learning_summary.py"
SCREEN = "report/screen.py"

MUTATIONS = [
    (DISPLAY, "if progress.undone is not None:", "if False:"),
    (DISPLAY, "{' (best)' if progress.best else ''}", ""),
    (DISPLAY, "(config.epochs - now.epoch)", "config.epochs"),
    (DISPLAY, "best[-1] if best", "best[0] if best"),
    (SCREEN, "[x for x in values if math.isfinite(x)]", "list(values)"),
    (DISPLAY, "return end.value", "return end.value and None"),
    (SCREEN, "seconds - self._printed_at >= 1", "True"),
    (SCREEN, "elif self._unprinted is not None:", "elif False:"),
    (SUMMARY, "if not learnt.shown:", "if learnt.shown:"),
    (SUMMARY, '.rstrip(".")', ""),
    (SUMMARY, "figure(e.low, d), figure(e.high, d)", "figure(e.high, d), figure(e.low, d)"),
    (SUMMARY, "None if folder is None else str(folder)", "None"),
    (SUMMARY, "tested[-1]", "tested[0]"),
    (SUMMARY, "p.undone is not None for p", "p.best for p"),
    ("report/wording.py", "not math.isfinite(content)", "math.isinf(content)"),
    ("report/wording.py", "content = named()", "pass"),
]
