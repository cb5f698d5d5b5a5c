"""The command line: which command runs, what is refused before it, exit statuses."""

SLOW = ("longer_limit", "damaged", "full_disk", "most_likely", "infinite", "dropped", "diverged")
TESTS = ["test_cli_logs.py", "test_cli.py", "-k", " and ".join(f"not {name}" for name in SLOW)]

MAIN = "cli/__init__.py"
NAMES = "cli/names.py"
LOGS = "cli/logs.py"
RUNS = "cli/runs.py"
SOURCES = "cli/sources.py"
FOLDERS = "cli/folders.py"

MUTATIONS = [
    (MAIN, "import reweigh\n", "import reweigh\nimport torch\n"),
    (MAIN, "sys.exit(0 if sys.argv[1:] else 2)", "sys.exit(0)"),
    (MAIN, "_exit(2, error)", "_exit(1, error)"),
    (MAIN, "_exit(1, error)", "raise"),
    (MAIN, "sys.path.insert(0, str(Path.cwd()))", "pass"),
    (MAIN, '" ".join(str(error).split())', "str(error)"),
    (MAIN, "get_close_matches(name, COMMANDS)", "get_close_matches(name, ())"),
    (NAMES, '(*choices, *(c.replace("_", "-") for c in choices if "_" in c))', "choices"),
    (NAMES, "if _underscored(name) not in known:", "if False:"),
    (NAMES, "return [_underscored(name) for name in given]", "return list(given)"),
    (LOGS, "names or methods}", "methods}"),
    (LOGS, "        evaluation[name]  # ", "        pass  # "),
    (LOGS, "if name not in CONCENTRATION:", "if False:"),
    (LOGS, "    if interval in CONCENTRATION:", "    if False:"),
    (LOGS, "lowest=return_range[0], highest=return_range[1])", "lowest=0.0, highest=1.0)"),
    (LOGS, "if learnt.shown else NOT_SHOWN", "if learnt.shown else 0"),
    (LOGS, "return INTERRUPTED", "return 0"),
    (LOGS, "if version is not None and policy is None:", "if False:"),
    (LOGS, "if version is not None and behaviour is None:", "if False:"),
    (LOGS, "load_policy(policy, version)\n    with", "load_policy(policy, None)\n    with"),
    (LOGS, "target = load_policy(policy, version)", "target = load_policy(policy)"),
    (LOGS, "all_methods if method else default_methods", "default_methods"),
    (RUNS, "replace(config, reuse=1)", "config"),
    (RUNS, "if all(row.passed for row in rows)", "if rows"),
    (RUNS, "return 130 if interrupted else 0", "return 0"),
    (RUNS, "return 130\n    compared", "return 0\n    compared"),
    (RUNS, "threshold=threshold)", "threshold=None)"),
    (SOURCES, "estimator if estimate_behaviour else None", "None"),
    (SOURCES, "format=format)", "format=None)"),
    (FOLDERS, "inside if", "path if"),
    (FOLDERS, "count(1)", "count(2)"),
]
