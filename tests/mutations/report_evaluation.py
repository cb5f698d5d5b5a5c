"""What a person sees of an evaluation."""

TESTS = ["test_report_evaluation*.py", "-k", "not chromium and not hundreds"]

WORDING = "report/evaluation_wording.py"
FIGURES = "report/wording.py"
TABLE = "report/evaluation_table.py"
CHARTS = "report/evaluation_charts.py"
PAGE = "report/evaluation_page.py"
SHELL = "report/page.py"

MUTATIONS = [
    (WORDING, "key=lambda e: e.standard_error, default", "key=lambda e: e.value, default"),
    (WORDING, "if e.believable and math.isfinite(e.standard_error)", "if e.believable"),
    (WORDING, "        [e for e in believable if e.method in SELF_NORMALISED],\n", ""),
    (WORDING, "        [e for e in believable if e.method != FROM_BELOW],\n", ""),
    (WORDING, "if estimate.low - behaviour.high > rounding", "if estimate.value > behaviour.high"),
    (WORDING, "behaviour.low - estimate.high > rounding", "behaviour.value > estimate.high"),
    (WORDING, 'where == "below" and chosen.method == FROM_BELOW', "False"),
    (WORDING, "if _estimated(evaluation):\n        shown", "if False:\n        shown"),
    (
        WORDING,
        'if not evaluation.weight_histogram:\n        return "The',
        'if False:\n        return "The',
    ),
    (WORDING, "enumerate(dict.fromkeys(said), start=1)", "enumerate(said, start=1)"),
    (FIGURES, "1 - math.floor(math.log10(min(usable)))", "2 - math.floor(math.log10(min(usable)))"),
    (FIGURES, "math.log10(min(usable))", "math.log10(max(usable))"),
    (WORDING, "e.method != BEHAVIOUR)", "False)"),
    (FIGURES, "round(value, decimals) + 0.0", "value"),
    (FIGURES, "0 < value < 0.5 * 10**-decimals", "False"),
    (WORDING, "{effective / estimate.weights", "{effective / estimate.episodes"),
    (FIGURES, "not math.isfinite(content)", "math.isnan(content)"),
    (FIGURES, "[Text(encodable", "[Text.from_markup(encodable"),
    (TABLE, "widths[_INTERVAL] + min(left, 0)", "widths[_INTERVAL]"),
    (CHARTS, "max(min([low, *others]), low - span)", "min([low, *others])"),
    (CHARTS, "within = [e for e in shown if e.believable]", "within = list(shown)"),
    (CHARTS, "if estimate.believable else _PALE", "if True else _PALE"),
    (CHARTS, "if left <= estimate.value <= right", "if True"),
    (SHELL, "autoescape=True", "autoescape=False"),
    (WORDING, '"first" if e is chosen else kind', "kind"),
    (WORDING, "sorted(numbers[warning] for warning in e.warnings)", "[]"),
    (FIGURES, '("has", "is") if episodes == 1', '("has", "is") if steps == 1'),
    (WORDING, 'if left_out.episodes else ""', 'if not left_out.episodes else ""'),
    ("report/svg.py", "f' id=\"{name}-'", "' id=\"'"),
    (PAGE, "(LIMIT - 1) //", "LIMIT //"),
]
