"""Logs, and the whole episodes of logs and of memory."""

TESTS = ["test_data_episodes.py", "test_data_log.py", "test_data_damage.py"]

EPISODES = "data/episodes.py"
LOG = "data/log.py"

MUTATIONS = [
    (EPISODES, "if self.schema is not None:", "if False:"),
    (EPISODES, "self.trajectories.in_episode_order().pieces", "self.trajectories.pieces"),
    (EPISODES, "if fragments.any():", "if True:"),
    (EPISODES, "yield piece.select(fragments)", "yield piece.select(~fragments)"),
    (EPISODES, "    if source.schema is None:", "    if False:"),
    (EPISODES, "(ordered.time_start[first] == 0) & ", ""),
    (EPISODES, " & ordered.ended[last]", ""),
    (EPISODES, "ordered.ended[last]", "ordered.terminated[last]"),
    (EPISODES, "mask[order] = np", "mask[:] = np"),
    (EPISODES, "    if whole.all():\n        return trajectories, Unfinished(0, 0)\n", ""),
    (EPISODES, "len(np.unique(trajectories.episode[~whole]))", "int((~whole).sum())"),
    (EPISODES, "trajectories.lengths[~whole].sum()", "trajectories.lengths.sum()"),
    (EPISODES, "SeedSequence([seed, stream])", "SeedSequence([seed])"),
    (EPISODES, "(z ^ (z >> np.uint64(30)))", "(z ^ (z >> np.uint64(31)))"),
    (EPISODES, "return z ^ (z >> np.uint64(31))", "return z"),
    (EPISODES, ">> np.uint64(11)) / 2.0**53", ">> np.uint64(12)) / 2.0**52"),
    (EPISODES, "seed=self.seed, stream=DRAWS", "seed=self.seed, stream=FOLDS"),
    (EPISODES, "seed=self.seed, stream=SHARES", "seed=self.seed, stream=DRAWS"),
    (
        EPISODES,
        "np.repeat(self.of(trajectories.episode)",
        "np.resize(self.of(trajectories.episode)",
    ),
    (EPISODES, "[1 - self.validation - self.test,", "[1 - self.validation,"),
    (LOG, '("policy_version", "episode", "time_start")\n', '("policy_version", "episode")\n'),
    (LOG, 'if (path / "_delta_log").exists():', "if False:"),
    (LOG, "if unquote(str(path)) != str(path):", "if False:"),
    (LOG, "        refuse_empty_commits(path)\n", ""),
    (LOG, 'if configuration["reweigh.format"] != FORMAT:', "if False:"),
    (LOG, "pinned._pinned = self._snapshot()", "pinned._pinned = None"),
    (LOG, "if schema != self.schema:", "if False:"),
    (LOG, "        trajectories.validate(self.schema)\n", ""),
    (LOG, "        if not len(trajectories):\n            return\n", ""),
    (
        LOG,
        "self._table.update_incremental()\n            write_deltalake(",
        "write_deltalake(",
    ),
    (LOG, "if self._table.version() % maintenance.EVERY == 0:", "if False:"),
    (
        LOG,
        "_read(self._snapshot(), _versions_from(first_version))",
        "_read(self._snapshot(), _versions_from(0))",
    ),
    (LOG, "versions[-count:][0]", "versions[-count - 1 :][0]"),
    (
        LOG,
        "yield from self._stream(_KEY, max_steps)",
        "yield from self._stream(_KEY[1:], max_steps)",
    ),
    (LOG, "yield batch.in_episode_order()", "yield batch"),
    (LOG, '("episode",), max_steps)', "_KEY[1:], max_steps)"),
    (LOG, "for name in reversed(key)])\n", "for name in key])\n"),
    (LOG, "if len(batch) != stop - first:", "if False:"),
    (LOG, 'np.add.at(steps, which, index["lengths"])', 'steps[which] = index["lengths"]'),
    (LOG, 'episodes=len(np.unique(index["episode"]))', 'episodes=len(index["episode"])'),
    (LOG, "get_fragments(filter=where.leading)", "get_fragments()"),
    (LOG, "rows.select(where.rows(table))", "rows"),
    (LOG, "for name in reversed(_KEY)])", "for name in _KEY])"),
    (LOG, "with damaged_data(path), pq", "with pq"),
]
