"""Import and export of logs."""

TESTS = ["test_importing_*.py", "test_exporting.py"]

MUTATIONS = [
    ("data/importing/steps.py", "rows, -1 - self._time", "rows, 0"),
    ("data/importing/steps.py", "(given != before + 1)", "(given <= before)"),
    ("data/importing/episodes.py", "& ~is_last", "& is_last & ~is_last"),
    ("data/importing/episodes.py", "np.minimum(last + 1, len(time) - 1)", "last"),
    ("data/importing/episodes.py", 'marks["terminated"] &= ~marks["truncated"]', "pass"),
    ("data/importing/episodes.py", "if label in self._seen:", "if False:"),
    ("data/importing/episodes.py", 'steps.get("next_observations"', 'steps.get("next"'),
    ("data/importing/entries.py", "if others.any() and not mend:", "if False:"),
    ("data/importing/entries.py", "| (discrete & (probabilities > 1))", ""),
    ("data/importing/entries.py", "np.maximum(self.highest, highest)", "self.highest"),
    ("data/importing/rows.py", "spread = np.zeros((", "spread = np.ones(("),
    ("data/importing/layout.py", 'elif "log_probs" in found', 'elif "log" in found'),
    ("data/importing/tables.py", "for roles in _GUESSES:", "for roles in _GUESSES[:1]:"),
    ("data/importing/table_files.py", "MAX_STEPS)", "1 << 40)"),
    ("data/importing/minari.py", "values[1:] if after_reset", "values[:-1] if after_reset"),
    ("data/importing/spaces.py", 'space.get("start", 0)', 'space.get("begin", 0)'),
    ("data/importing/write.py", "steps + piece.steps > max_steps", "steps > max_steps"),
    ("data/importing/write.py", "np.isneginf(batch.log_probs)", "np.isnan(batch.rewards)"),
    ("data/importing/write.py", "batch.validate(self.log.schema)", "pass"),
    ("data/importing/folder.py", "shutil.rmtree(temporary)", "pass"),
    ("data/importing/exported.py", "page_checksum_verification=True", "memory_map=False"),
    ("data/importing/exported.py", "(count != (steps if name in PER_STEP else spans)).any()", "0"),
    ("data/importing/exported.py", '/log_probs"][1:]', '/log_probs"][:-1]'),
    ("data/exporting.py", "fragments = np.append(0, last + 1)", "fragments = np.append(0, last)"),
    ("data/exporting.py", "batch.final_observations[first:last]", "batch.observations[first:last]"),
]
