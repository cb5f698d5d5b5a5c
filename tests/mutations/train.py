"""The training loop."""

TESTS = ["test_train.py", "-k", "not killed_at and not cartpole_is"]

MUTATIONS = [
    ("train/improve.py", "* batch.goes_on\n    learner", "\n    learner"),
    ("train/improve.py", "kl > settled(config.max_kl)", "kl > 1e9"),
    ("train/improve.py", "ess < config.min_ess", "ess < 0"),
    ("data/batch.py", "return ~self.terminated", "return ~self.truncated"),
    ("data/batch.py", "t.stop[last] - t.start[first]", "t.lengths[first]"),
    (
        "train/improve.py",
        "advantages[index], began[index]",
        "advantages[index], batch.log_prob_behaviour[index]",
    ),
    (
        "train/improve.py",
        "- entropy_weight * entropy",
        "+ entropy_weight * entropy",
    ),
    ("train/improve.py", "(1 + settled(config.entropy_decay) * newest)", "1"),
    ("train/start.py", "if version == 0 else 0", "if False else 0"),
    ("train/start.py", "if version == 0 else 0", ""),
    (
        "train/start.py",
        "min(settled(config.first_steps), config.steps)",
        "settled(config.first_steps)",
    ),
    ("train/improve.py", "(policy_loss + value_loss", "(policy_loss"),
    ("train/improve.py", "estimate.action_values - values", "estimate.action_values"),
    ("train/loop.py", "if version not in window:", "if True:"),
    ("train/loop.py", "window.pop(version - config.reuse, None)", "pass"),
    ("train/loop.py", "checkpoint.version - config.reuse + 1", "checkpoint.version"),
    ("train/loop.py", "run.forget_metrics_from(checkpoint.version)", "pass"),
    ("train/loop.py", "learner.load(run.policies", "(lambda *_: None)(run.policies"),
    ("train/loop.py", "len(seen) < CONFIRMING_EPISODES", "len(seen) < 1"),
    ("train/loop.py", "if config.evaluation_episodes == 0 else", "if returns is None else"),
    ("train/learner.py", "optimiser.{i}.{name}", "optimiser.0.{name}"),
    ("train/start.py", "part.policy_version < version", "part.policy_version <= version"),
    ("train/start.py", "p.episode, past[p.episode].actions if p.time else ()", "p.episode"),
]
