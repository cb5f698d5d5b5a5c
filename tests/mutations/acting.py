"""Policies, environments, collection."""

TESTS = ["test_acting.py", "test_train.py", "-k", "not killed_at and not cartpole_is"]

MUTATIONS = [
    ("acting/collect.py", "live = ~self.resetting", "live = np.ones_like(self.resetting)"),
    ("acting/collect.py", 'final[i] = infos["final_obs"][i]', "pass"),
    ("acting/collect.py", "self.resetting = ended.copy()", "self.resetting = terminated.copy()"),
    ("acting/collect.py", "position.episode + len(self.positions)", "position.episode + 1"),
    ("acting/collect.py", "position.time - (last - first + 1)", "position.time - (last - first)"),
    ("acting/collect.py", "first : f.last + 1", "first : f.last"),
    ("acting/collect.py", "position.episode_return += float", "position.episode_return = float"),
    ("acting/collect.py", "if tick.raised[i]:", "if False:"),
    ("acting/collect.py", 'terminated=at_end("terminated")', 'terminated=at_end("truncated")'),
    ("acting/collect.py", "episode_seed(self.seed, version)", "episode_seed(self.seed, 0)"),
    ("acting/collect.py", "torch.random.fork_rng(devices=[]), ", ""),
    ("acting/environments.py", "+= self._stride", "+= 1"),
    ("acting/environments.py", "reset(seed=own", "reset(seed=seed"),
    ("acting/environments.py", "for action in self._replay:", "for action in []:"),
    ("acting/environments.py", "index + first", "index"),
    ("acting/environments.py", "middle + half_width * action", "action"),
    (
        "acting/environments.py",
        "half_width * action, low, high)",
        "half_width * action, low, None)",
    ),
    ("acting/environments.py", "index - first_state", "index"),
    (
        "acting/environments.py",
        "= deepcopy(observation)\n        return self._observation, *",
        "= observation\n        return self._observation, *",
    ),
    ("acting/collect.py", "self._refuse_broken(observations)", "pass"),
    ("acting/policy.py", "self.mean - mean", "mean - self.mean"),
    ("acting/policy.py", "self.spread.sigmoid()", "self.spread.exp()"),
    ("acting/evaluate.py", "returns[episode] += float(reward)", "returns[episode] = float(reward)"),
]
