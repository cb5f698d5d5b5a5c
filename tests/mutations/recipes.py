"""What recipes and samples are made of; `verify.py` has the formulas of the recipes."""

TESTS = ["test_core_sample.py", "test_recipes.py"]

RECIPE = "recipes/recipe.py"
COMPOSING = "recipes/composing.py"
GROUPS = "recipes/groups.py"
VALUES = "recipes/values.py"
SCORES = "recipes/scores.py"
SAMPLE = "core/sample.py"
LAYOUTS = "core/layouts.py"
RANKS = "core/ranks.py"

MUTATIONS = [
    (RECIPE, "return sample.episodes", "return len(sample)"),
    (RECIPE, "torch.where(sample.trained, objective, 0.0)", "objective"),
    (RECIPE, "return sample.in_shape(objective)", "return objective"),
    (RECIPE, "if divisor is not None:\n                raise", "if False:\n                raise"),
    (RECIPE, "self.divisor(sample) if divisor is None else divisor", "self.divisor(sample)"),
    (RECIPE, "if terms.weighted is not None:", "if False:"),
    (RECIPE, "return -terms.plain.sum() / divisor", "return -terms.plain.mean()"),
    (RECIPE, "if unknown := sorted", "if False and sorted"),
    (RECIPE, "partial(self.function, **knobs)", "partial(self.function)"),
    (RECIPE, "partial(type(self).bind, self, **knobs)", "None"),
    (COMPOSING, "origin=partial(truncated, recipe, maximum=maximum)", "origin=None"),
    (
        COMPOSING,
        "torch.where(zero, 0.0, log_weights - log_weights.detach())",
        "log_weights - log_weights.detach()",
    ),
    (GROUPS, "return sample.totals.trained_steps.sum()", "pass"),
    (GROUPS, "advantages[sample.episode]", "advantages[: len(sample)]"),
    (GROUPS, 'sample.steps("advantages", advantages).detach()', "advantages.detach()"),
    (VALUES, "if contracts.can_look_at(sample.returns) and bool(too_low):", "if False:"),
    (
        VALUES,
        'sample.steps("action_values", action_values).detach()',
        'sample.steps("action_values", action_values)',
    ),
    (SAMPLE, "self._flat(x), self.segments).detach()", "self._flat(x), self.segments)"),
    (SCORES, "bootstrap=bootstrap\n", "bootstrap=None\n"),
    (SAMPLE, "torch.where(trained, target, target.detach())", "target"),
    (SAMPLE, "trained & self.segments.inside", "trained"),
    (SAMPLE, 'self.steps("rewards", self.rewards).detach()', 'self.steps("rewards", self.rewards)'),
    (
        SAMPLE,
        "return len(self) if self.totals is None else len(self.totals.steps)",
        "return len(self)",
    ),
    (SAMPLE, "return self.totals.trained_steps[self.episode]", "pass"),
    (SAMPLE, "log_weight_start=self.log_weight_start\n", "log_weight_start=None\n"),
    (SAMPLE, "return self._of_whole(self.totals.log_ratios, local)", "return local"),
    (SAMPLE, "if self.totals is None else self.totals.steps[self.episode]", ""),
    (SAMPLE, "(local - local.detach()) * share", "(local - local.detach())"),
    (SAMPLE, "log_prob_sources.flatten(1), proportions", "log_prob_sources, proportions"),
    (SAMPLE, 'contracts.require_groups("episode", episode, count)', "pass"),
    (SAMPLE, "x + y for x, y in zip(self, other", "x for x, y in zip(self, other"),
    (SAMPLE, "if self.steps.shape != other.steps.shape:", "if False:"),
    (
        SAMPLE,
        "lengths.double(), self._trained_here",
        "lengths.double(), self.segments.lengths.double()",
    ),
    (LAYOUTS, "or int(bounds[0]) != 0:", "or False:"),
    (LAYOUTS, "is_episode = ids[start] >= 0", "is_episode = ids[start] >= -9"),
    (LAYOUTS, "begins[1:] = ids[1:] != ids[:-1]", "begins[1:] = ids[1:] > ids[:-1]"),
    (LAYOUTS, "if bool((count > 1).any()):", "if False:"),
    (RANKS, "merged = merged.merge(part)", "pass"),
]
