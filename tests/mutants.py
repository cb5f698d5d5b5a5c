"""Breaks the package on purpose, one change at a time, and sees whether the tests notice.

    python tests/mutants.py            # all; or: python tests/mutants.py acting train

Each mutant is a copy of the package with one text replaced; the tests of its folder run against it.
A mutant that survives is a hole in the tests: the exit status is 1.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
MATHEMATICS = [*sorted(p.name for p in ROOT.glob("tests/test_core_*.py")), "test_recipes.py"]
TESTS = {
    "acting": ["test_acting.py", "test_train.py", "-k", "not killed_at and not cartpole_is"],
    "train": ["test_train.py", "-k", "not killed_at and not cartpole_is"],
    "core": MATHEMATICS,
    "recipes.py": MATHEMATICS,
    "contracts.py": MATHEMATICS,
}

MUTANTS = [
    # Where episodes and their steps are.
    (
        "core/segments.py",
        "index_fill(0, positions, True) & self.mask",
        "index_fill(0, positions, True)",
    ),
    (
        "core/segments.py",
        "torch.zeros_like(self.mask).index_fill(0, positions, True) & self.mask",
        "self.mask",
    ),
    ("core/segments.py", "return torch.where(self.inside, x, value)", "return x * self.inside"),
    ("core/segments.py", "self.time_start[owner] + before[positions]", "before[positions]"),
    ("core/segments.py", "- before[self.start[owner]]", ""),
    (
        "core/segments.py",
        "before = self.inside.cumsum(0) - self.inside.long()",
        "before = torch.arange(self.size)",
    ),
    (
        "core/segments.py",
        "torch.where(self.is_last, final[self.episode], x[self._following])",
        "x[self._following]",
    ),
    ("core/segments.py", "self.stop[owner] - 1 - positions", "self.stop[owner] - positions"),
    ("core/segments.py", "occupied = occupied[self.start[occupied].argsort()]", ""),
    # The recurrences.
    ("core/scan.py", "segments.offset >= stride", "segments.offset >= 0"),
    ("core/scan.py", "segments.offset >= stride", "segments.offset > stride"),
    ("core/scan.py", "segments.remaining >= stride", "segments.remaining > stride"),
    ("core/scan.py", "torch.where(reaches, value.roll(-stride), 0.0)", "value.roll(-stride)"),
    (
        "core/scan.py",
        "product * torch.where(reaches, value.roll(-stride), 0.0)",
        "product * value.roll(-stride) * reaches",
    ),
    ("core/scan.py", "a.masked_fill(segments.is_last, 0.0)", "a"),
    ("core/scan.py", "0.0), 1.0)", "0.0))"),
    ("core/scan.py", "while stride < segments.longest", "while stride * 2 < segments.longest"),
    # Ratios and weights.
    ("core/ratios.py", "return target - behaviour", "return behaviour - target"),
    ("core/ratios.py", "log_prob_behaviour).detach()", "log_prob_behaviour)"),
    ("core/ratios.py", "target.isnan() | (target == torch.inf)", "target.isnan()"),
    ("core/ratios.py", "~behaviour.isfinite()", "behaviour.isnan()"),
    (
        "core/ratios.py",
        "segments.time[first] - segments.time_start[episode]",
        "segments.time[first]",
    ),
    (
        "core/weights.py",
        "prefix_sum(step(log_ratios, segments), segments) +",
        "prefix_sum(step(log_ratios, segments), segments) - log_ratios +",
    ),
    ("core/weights.py", "segments) + segments.spread(start)", "segments)"),
    ("core/weights.py", "segments)) + start)", "segments)))"),
    ("core/weights.py", "log_weights.clamp(max=limit)", "log_weights.clamp(min=limit)"),
    (
        "core/weights.py",
        "log_weights.clamp(max=limit)",
        "log_weights.exp().clamp(max=maximum).log()",
    ),
    ("core/weights.py", "segments.inside & (log_weights > limit)", "log_weights > limit"),
    ("core/weights.py", " - math.log(len(segments))", ""),
    ("core/weights.py", "torch.where(log_mean == -torch.inf, 0.0, log_mean)", "log_mean"),
    ("core/weights.py", "torch.logaddexp(alive, ended.logcumsumexp(0)[:times])", "alive"),
    ("core/weights.py", "ended.logcumsumexp(0)[:times]", "ended[:times]"),
    ("core/weights.py", "shifted = (x - highest[group]).exp()", "shifted = x.exp()"),
    ("core/weights.py", "highest = torch.where(highest == -torch.inf, 0.0, highest)", ""),
    ("core/weights.py", "segments.fill(target - _log_mix", "segments.fill(target + _log_mix"),
    ("core/weights.py", "log_probs + proportions.double().log().unsqueeze(1)", "log_probs"),
    (
        "core/weights.py",
        'if segments.has_fragments:\n        raise ValueError(\n            "log',
        'if False:\n        raise ValueError(\n            "log',
    ),
    # Returns and advantages.
    ("core/returns.py", "rewards + discount * segments.next", "rewards + segments.next"),
    ("core/returns.py", "linear_recurrence(weights * rewards", "linear_recurrence(rewards"),
    (
        "core/returns.py",
        "torch.full_like(rewards, discount), segments",
        "torch.ones_like(rewards), segments",
    ),
    (
        "core/returns.py",
        "discount ** segments.time.double()",
        "discount ** segments.offset.double()",
    ),
    ("core/advantages.py", "discount * trace_lambda", "trace_lambda"),
    ("core/advantages.py", "c = trace_lambda * _truncated", "c = _truncated"),
    ("core/advantages.py", '"max_c", max_c)', '"max_c", max_rho)'),
    ("core/advantages.py", "delta = rho * (", "delta = ("),
    ("core/advantages.py", "targets = v + linear_recurrence", "targets = linear_recurrence"),
    ("core/advantages.py", "discount * c, segments", "c, segments"),
    (
        "core/advantages.py",
        "_action_values(rewards, targets, bootstrap",
        "_action_values(rewards, values, bootstrap",
    ),
    ("core/advantages.py", "rho_advantage * (action_values - v)", "rho * (action_values - v)"),
    ("core/advantages.py", "@torch.no_grad()\ndef vtrace", "def vtrace"),
    ("core/advantages.py", "@torch.no_grad()\ndef gae", "def gae"),
    # Surrogates and reduction.
    ("core/surrogates.py", "coefficient = coefficient.detach()", ""),
    ("core/surrogates.py", "torch.where(coefficient == 0, 0.0, log_prob)", "log_prob"),
    ("core/surrogates.py", "advantages < 0,", "advantages > 0,"),
    ("core/surrogates.py", "advantages < 0,", "advantages <= 0,"),
    ("core/surrogates.py", "torch.where(low, floor, log_ratios)", "log_ratios"),
    ("core/surrogates.py", "torch.where(high, ceiling, log_ratios)", "log_ratios"),
    ("core/surrogates.py", '"advantages", advantages.detach()', '"advantages", advantages'),
    ("core/surrogates.py", "log_centre.detach()", "log_centre"),
    ("core/reduce.py", "return -segments", "return segments"),
    ("core/reduce.py", "divisor = len(segments) if", "divisor = int(segments.lengths.sum()) if"),
    # Diagnostics.
    (
        "core/diagnostics.py",
        "weights.sum().square() / weights.square().sum()",
        "weights.sum() / weights.square().sum()",
    ),
    ("core/diagnostics.py", "(log_weights - highest).exp()", "log_weights.exp()"),
    ("core/diagnostics.py", "log_sum_by_time(2 * log_weights", "log_sum_by_time(log_weights"),
    ("core/diagnostics.py", "(log_ratios.expm1() - log_ratios)", "(-log_ratios)"),
    (
        "core/diagnostics.py",
        "(log_ratios.expm1() - log_ratios)",
        "((-log_ratios).expm1() + log_ratios)",
    ),
    ("core/diagnostics.py", "segments.inside.sum()", "torch.tensor(segments.size)"),
    # Recipes and contracts.
    (
        "recipes.py",
        "log_prob_target, prefix, continuation",
        "log_prob_target, 1 + 0 * prefix, continuation",
    ),
    (
        "recipes.py",
        "returns.per_decision(rewards, prefix,",
        "returns.per_decision(rewards, ratios,",
    ),
    ("recipes.py", "from_start * ratio", "ratio"),
    ("recipes.py", "from_start * whole", "whole"),
    ("contracts.py", "if log_prob.dtype in (float16, bfloat16)", "if log_prob.dtype == float16"),
    ("contracts.py", "if not value > 0", "if value < 0"),
    ("contracts.py", "(x >= 0).all()", "(x >= -9).all()"),
    # Acting: what is a step, whose it is, and how it ended.
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
    # Training: the objective, its limits, and going on where it stopped.
    ("train/improve.py", "* batch.goes_on\n    learner", "\n    learner"),
    ("train/improve.py", "kl > config.max_kl", "kl < -config.max_kl"),
    ("train/improve.py", "ess < config.min_ess", "ess < 0"),
    ("train/improve.py", "~t.terminated[last]", "~t.truncated[last]"),
    ("train/improve.py", "t.stop[last] - t.start[first]", "t.lengths[first]"),
    ("train/improve.py", "log_centre=log_centre[index]", "log_centre=None"),
    ("train/improve.py", "- config.entropy * entropy", "+ config.entropy * entropy"),
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


def survives(file: str, old: str, new: str, folder: Path) -> bool:
    """Whether the tests pass although `old` reads `new` in the copy of the package."""
    path = folder / "reweigh" / file
    text = path.read_text()
    if old not in text:
        raise ValueError(f"{file} no longer contains {old!r}: bring the list of mutants up to date")
    path.write_text(text.replace(old, new, 1))
    pytest = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*pytest, *TESTS[file.partition("/")[0]]],
        cwd=folder / "tests",
        env=environment,
        capture_output=True,
        text=True,
    )
    path.write_text(text)
    return done.returncode == 0


def main() -> int:
    """Runs the mutants of the places named, or all; reports survivors, returns the exit status."""
    mutants = [m for m in MUTANTS if not sys.argv[1:] or m[0].partition("/")[0] in sys.argv[1:]]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shutil.copytree(ROOT / "reweigh", folder / "reweigh")
        shutil.copy(ROOT / "pyproject.toml", folder)
        shutil.copytree(ROOT / "tests", folder / "tests")
        for file in {file.partition("/")[0]: file for file, *_ in mutants}.values():
            if not survives(file, "", "", folder):
                print(f"the tests of {file} fail without any mutation: mend them first")
                return 1
        survivors = []
        for number, (file, old, new) in enumerate(mutants, start=1):
            alive = survives(file, old, new, folder)
            print(f"{number:2}/{len(mutants)} {'SURVIVES' if alive else 'killed'}  {file}: {old!r}")
            if alive:
                survivors.append((file, old, new))
    print(f"{len(mutants) - len(survivors)} of {len(mutants)} killed")
    for file, old, new in survivors:
        print(f"survivor: {file}: {old!r} -> {new!r}")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
