"""Recipes, what they declare, and the proof itself: noticed by `reweigh verify` alone."""

COMMAND = ["-c", "from reweigh.cli import main; main()", "verify"]

VALUES = "recipes/values.py"
SCORES = "recipes/scores.py"
ACTOR_CRITIC = "recipes/actor_critic.py"
TRUST_REGION = "recipes/trust_region.py"
GROUPS = "recipes/groups.py"
MISMATCH = "recipes/mismatch.py"
COMPOSING = "recipes/composing.py"
RECIPE = "recipes/recipe.py"
EXPECTATION = "recipes/expectation.py"
GOLDEN = "verify/golden_estimators.py"
PROBLEM = "verify/problem.py"
DECLARED = "verify/declared.py"
CHECK = "verify/check.py"
BATCHES = "verify/batches.py"
CASES = "verify/cases.py"
TRAJECTORIES = "verify/trajectories.py"
FORMULAS = "verify/formulas.py"
NUMERICS = "verify/numerics.py"
SAMPLE = "core/sample.py"

RECIPES = [
    # values
    (VALUES, "Terms(sample.returns, maximum", "Terms(2 * sample.returns, maximum"),
    (VALUES, "weigh(sample.log_trajectory, sample.returns)", "sample.returns"),
    (
        VALUES,
        "weigh(sample.log_trajectory, sample.returns)",
        "weigh(sample.log_trajectory.detach(), sample.returns)",
    ),
    (
        VALUES,
        "weigh(sample.log_prefix, sample.discounted_rewards)",
        "weigh(sample.log_ratios, sample.discounted_rewards)",
    ),
    (
        VALUES,
        "weigh(sample.log_prefix, sample.discounted_rewards)",
        "weigh(sample.log_prefix, sample.require_rewards())",
    ),
    (
        VALUES,
        "Weighted(sample.returns, sample.log_trajectory, _one_step(sample))",
        "Weighted(sample.returns, 0.5 * sample.log_trajectory, _one_step(sample))",
    ),
    (
        VALUES,
        "Weighted(sample.discounted_rewards, sample.log_prefix",
        "Weighted(sample.require_rewards(), sample.log_prefix",
    ),
    (
        VALUES,
        "Weighted(sample.discounted_rewards, sample.log_prefix",
        "Weighted(sample.discounted_rewards, sample.log_ratios",
    ),
    (
        VALUES,
        "truncate(whole, _one_step(sample), maximum=maximum)",
        "truncate(whole, _one_step(sample), maximum=torch.inf)",
    ),
    (VALUES, "sample.returns - base)", "sample.returns)"),
    (VALUES, "Terms(base + above", "Terms(above"),
    (
        VALUES,
        "Weighted(sample.returns, log_weights",
        "Weighted(sample.returns, sample.log_trajectory",
    ),
    (VALUES, "discount * following - action_values", "discount * following"),
    (VALUES, "sample.require_rewards() + sample.discount * following", "sample.require_rewards()"),
    (VALUES, "sample.discount_from_start * left", "left"),
    (VALUES, "Terms(_first(values, sample) + corrections", "Terms(corrections"),
    (VALUES, "Weighted(residuals, sample.log_prefix", "Weighted(residuals, sample.log_ratios"),
    (VALUES, "sample.against(log_prob_sources, proportions)", "sample"),
    # scores
    (
        SCORES,
        "weighted_score(sample, 1.0, sample.reward_to_go)",
        "weighted_score(sample, -1.0, sample.reward_to_go)",
    ),
    (
        SCORES,
        "weighted_score(sample, sample.log_ratios.exp(), continuation)",
        "weighted_score(sample, sample.log_ratios.exp(), continuation, discounted=False)",
    ),
    (
        SCORES,
        "weighted_score(sample, sample.log_ratios.exp(), continuation)",
        "weighted_score(sample, 1.0, continuation)",
    ),
    (
        SCORES,
        "sample.log_prefix.exp(), sample.reward_to_go, discounted=False",
        "sample.log_prefix.exp(), sample.reward_to_go",
    ),
    (
        SCORES,
        "sample.log_prefix.exp(), sample.reward_to_go",
        "sample.log_ratios.exp(), sample.reward_to_go",
    ),
    (SCORES, "segments.spread(sample.log_trajectory).exp()", "log_prefix.exp()"),
    (
        SCORES,
        "weighted_score(sample, whole, sample.reward_to_go)",
        "weighted_score(sample, whole, sample.require_rewards())",
    ),
    (
        SCORES,
        'marginal.exp(), sample.steps("action_values", action_values)',
        "marginal.exp(), sample.reward_to_go",
    ),
    (
        SCORES,
        "sample.log_ratios, state_ratios, sample.segments",
        "sample.log_ratios, 0 * state_ratios, sample.segments",
    ),
    (SCORES, "share=share[own]", "share=0.0"),
    (SCORES, "proportion * sum(episodes) / proportion.new_tensor(episodes)", "proportion"),
    # actor_critic
    (ACTOR_CRITIC, "maximum=1.0", "maximum=2.0"),
    (ACTOR_CRITIC, "1.0, trace.advantages", "1.0, trace.targets"),
    (ACTOR_CRITIC, "trace.advantages, discounted=False", "trace.advantages"),
    (ACTOR_CRITIC, "sample.log_ratios.exp(), estimate - values", "1.0, estimate - values"),
    (
        ACTOR_CRITIC,
        "sample.log_ratios.exp(), estimate - values",
        "sample.log_ratios.exp(), sample.reward_to_go - values",
    ),
    (
        ACTOR_CRITIC,
        "kept, estimate - v, discounted",
        "sample.log_ratios.exp(), estimate - v, discounted",
    ),
    (ACTOR_CRITIC, "all_action_values.detach() - v.unsqueeze(1)", "all_action_values.detach()"),
    (ACTOR_CRITIC, "return sampled + expected", "return sampled - expected"),
    (
        ACTOR_CRITIC,
        "return sampled + expected_value(sample, log_probs_target, above)",
        "return sampled",
    ),
    # trust_region
    (
        TRUST_REGION,
        "weighted_ratio(ratios, ratios.exp(), advantages",
        "weighted_ratio(ratios, 1 + 0 * ratios, advantages",
    ),
    (
        TRUST_REGION,
        "sample.log_ratios, advantages, sample.segments, clip=clip, clip_high=clip_high",
        "sample.log_ratios, advantages, sample.segments, clip=1e9",
    ),
    (TRUST_REGION, "clip=clip, clip_high=clip_high", "clip=clip, clip_high=2 * clip"),
    (TRUST_REGION, "current - sample.require_behaviour()", "0 * current"),
    (TRUST_REGION, 'sample.steps("policy_weights", policy_weights) * advantages', "advantages"),
    (TRUST_REGION, "(proportions.to(shares.device) / shares.double())", "proportions"),
    (TRUST_REGION, "segments.spread(sample.log_trajectory)", "sample.log_ratios"),
    (
        TRUST_REGION,
        'steps("advantages", advantages) / temperature',
        'steps("advantages", advantages) * 2',
    ),
    (
        TRUST_REGION,
        "tilted, sample.segments, maximum=maximum",
        "tilted, sample.segments, maximum=1.0",
    ),
    # groups
    (
        GROUPS,
        "compared(advantages.returns, advantages.group",
        "2 * compared(advantages.returns, advantages.group",
    ),
    (
        GROUPS,
        "compared: Callable[..., Tensor] = group_relative",
        "compared: Callable[..., Tensor] = group_centred",
    ),
    (GROUPS, "return _over_answer(sample, objective)", "return objective"),
    (GROUPS, "_answers(sample, advantages, group_centred)", "_answers(sample, advantages)"),
    (GROUPS, "sample.segments, clip=clip) / horizon", "sample.segments, clip=clip)"),
    (
        GROUPS,
        "sample.log_ratios, a, sample.segments, clip=clip) / horizon",
        "sample.log_ratios, a, sample.segments, clip=9.0) / horizon",
    ),
    (GROUPS, "        clip=clip,\n        clip_high=clip_high,\n", "        clip=clip,\n"),
    (GROUPS, "divisor=trained_tokens,\n)\ndef dapo", "divisor=len,\n)\ndef dapo"),
    (GROUPS, "divisor=trained_tokens,\n)\ndef cispo", "divisor=len,\n)\ndef cispo"),
    (
        GROUPS,
        "sample, 1.0, _answers(sample, advantages, leave_one_out)",
        "sample, 1.0, _answers(sample, advantages, group_centred)",
    ),
    (
        GROUPS,
        "sequence, _answers(sample, advantages)",
        "sample.log_ratios, _answers(sample, advantages)",
    ),
    (GROUPS, "minimum=minimum, maximum=maximum", "minimum=minimum, maximum=1e9"),
    (GROUPS, "minimum=minimum, maximum=maximum", "minimum=0.0, maximum=maximum"),
    (
        GROUPS,
        "clip: float = 3e-4, clip_high: float = 4e-4",
        "clip: float = 0.2, clip_high: float = 0.2",
    ),
    (GROUPS, "maximum: float = 1.28", "maximum: float = 1.2"),
    (GROUPS, "torch.where(a < 0, tapered, 1.0)", "torch.where(a > 0, tapered, 1.0)"),
    (GROUPS, "torch.where(a < 0, tapered, 1.0)", "tapered"),
    (GROUPS, "truncate(whole, segments, maximum=1.0)", "truncate(whole, segments, maximum=1e9)"),
    # mismatch
    (MISMATCH, "sample.log_prob_target - proximal,", "sample.log_ratios,"),
    (MISMATCH, "log_weights=log_weights", "log_weights=None"),
    (
        MISMATCH,
        "truncate(mismatch, sample.segments, maximum=maximum)",
        "truncate(mismatch, sample.segments, maximum=1e9)",
    ),
    (
        MISMATCH,
        "log_prob_proximal, advantages, mismatch, clip)",
        "log_prob_proximal, advantages, 0 * mismatch, clip)",
    ),
    (MISMATCH, "minimum=minimum, maximum=maximum", "minimum=0.0, maximum=1e9"),
    (MISMATCH, "clip=clip,", "clip=9.0,"),
    # what all of them share
    (
        COMPOSING,
        "sample.with_prefix(with_gradient_of(whole, bounded))",
        "sample.with_prefix(whole)",
    ),
    (COMPOSING, "return bounded.detach() + change", "return bounded"),
    (COMPOSING, "sample.discount_from_start * continuation", "continuation"),
    (RECIPE, "-totals(terms).value", "totals(terms).value"),
    (
        RECIPE,
        "reduce.loss(objective.flatten(), sample.segments, divisor=divisor)",
        "-reduce.loss(objective.flatten(), sample.segments, divisor=divisor)",
    ),
    (SAMPLE, "self.require_rewards() * self.discount_from_start", "self.require_rewards()"),
    (
        SAMPLE,
        "return self.log_prob_target - self.require_behaviour()",
        "return 0.5 * (self.log_prob_target - self.require_behaviour())",
    ),
]

LABELS = [
    *(
        (VALUES, f"@value({was})\ndef {name}", f"@value({now})\ndef {name}")
        for name, was, now in (
            ("behaviour", "BIASED, estimated=BEHAVIOUR", "BIASED"),
            ("behaviour", "BIASED, estimated=BEHAVIOUR", "UNBIASED, estimated=BEHAVIOUR"),
            ("importance_sampling", "UNBIASED", "BIASED"),
            ("importance_sampling", "UNBIASED", "CONSISTENT"),
            ("importance_sampling", "UNBIASED", "UNBIASED, estimated=BEHAVIOUR"),
            ("per_decision", "UNBIASED", "BIASED"),
            ("per_decision", "UNBIASED", "UNBIASED, on_policy=BIASED"),
            ("weighted_importance_sampling", "CONSISTENT", "UNBIASED"),
            ("weighted_importance_sampling", "CONSISTENT", "BIASED"),
            ("weighted_per_decision", "CONSISTENT", "UNBIASED"),
            ("weighted_per_decision", "CONSISTENT", "BIASED"),
            ("balance_heuristic", "UNBIASED", "BIASED"),
            ("balance_heuristic", "UNBIASED", "CONSISTENT"),
            ("doubly_robust", "UNBIASED._replace(any_critic=True)", "UNBIASED"),
            ("doubly_robust", "UNBIASED._replace(any_critic=True)", "BIASED"),
        )
    ),
    (
        VALUES,
        "    BIASED,\n    estimated=None,\n    on_policy=UNBIASED",
        "    UNBIASED,\n    estimated=None,\n    on_policy=UNBIASED",
    ),
    (
        VALUES,
        "    BIASED,\n    estimated=None,\n    on_policy=UNBIASED",
        "    BIASED,\n    on_policy=UNBIASED",
    ),
    (VALUES, "estimated=None,\n    on_policy=UNBIASED", "estimated=None,\n    on_policy=BIASED"),
    (
        VALUES,
        "estimated=None,\n    on_policy=CONSISTENT",
        "estimated=None,\n    on_policy=UNBIASED",
    ),
    (VALUES, "estimated=None,\n    on_policy=CONSISTENT", "estimated=None,\n    on_policy=BIASED"),
    (
        VALUES,
        "lambda sample: weighted_importance_sampling(sample)",
        "lambda sample: importance_sampling(sample)",
    ),
    (VALUES, "of_one_episode=Gradient(BEHAVIOUR, TARGET)", "of_one_episode=None"),
    (
        VALUES,
        "of_one_episode=Gradient(BEHAVIOUR, TARGET)",
        "of_one_episode=Gradient(BEHAVIOUR, BEHAVIOUR)",
    ),
    (
        VALUES,
        "CONSISTENT._replace(any_critic=True, of_one_episode=Gradient(BEHAVIOUR, TARGET))",
        "CONSISTENT._replace(of_one_episode=Gradient(BEHAVIOUR, TARGET))",
    ),
    (VALUES, "of_one_episode=GRADIENT", "of_one_episode=None"),
    (
        SCORES,
        "@gradient(BIASED, on_policy=UNBIASED)\ndef reinforce",
        "@gradient(BIASED)\ndef reinforce",
    ),
    (
        SCORES,
        "@gradient(BIASED, on_policy=UNBIASED)\ndef reinforce",
        "@gradient(UNBIASED)\ndef reinforce",
    ),
    (SCORES, "Gradient(BEHAVIOUR, BEHAVIOUR)", "Gradient(BEHAVIOUR, TARGET)"),
    (SCORES, "Gradient(BEHAVIOUR, BEHAVIOUR)", "Gradient(BEHAVIOUR, BEHAVIOUR, discounted=False)"),
    (SCORES, "Expectation(Gradient(BEHAVIOUR, BEHAVIOUR))", "BIASED"),
    (
        SCORES,
        "Gradient(TARGET, BEHAVIOUR, discounted=False)",
        "Gradient(TARGET, TARGET, discounted=False)",
    ),
    (SCORES, "Gradient(TARGET, BEHAVIOUR, discounted=False)", "Gradient(TARGET, BEHAVIOUR)"),
    (SCORES, "@gradient(UNBIASED)\ndef trajectory", "@gradient(BIASED)\ndef trajectory"),
    (SCORES, "@gradient(UNBIASED)\ndef state_marginal", "@gradient(BIASED)\ndef state_marginal"),
    (
        SCORES,
        "@gradient(UNBIASED)\ndef state_marginal",
        "@gradient(UNBIASED._replace(any_critic=True))\ndef state_marginal",
    ),
    (
        SCORES,
        "@gradient(BIASED, on_policy=UNBIASED)\ndef power_mean",
        "@gradient(UNBIASED)\ndef power_mean",
    ),
    (
        SCORES,
        "@gradient(BIASED, on_policy=UNBIASED)\ndef power_mean",
        "@gradient(BIASED)\ndef power_mean",
    ),
    (ACTOR_CRITIC, "Gradient(BEHAVIOUR, TARGET, discounted=False)", "Gradient(BEHAVIOUR, TARGET)"),
    (
        ACTOR_CRITIC,
        "Gradient(BEHAVIOUR, TARGET, discounted=False)",
        "Gradient(TARGET, TARGET, discounted=False)",
    ),
    (
        ACTOR_CRITIC,
        "USUAL = Expectation(Gradient(TARGET, TARGET, discounted=False))",
        "USUAL = Expectation(Gradient(TARGET, TARGET))",
    ),
    (
        ACTOR_CRITIC,
        "@gradient(BIASED, on_policy=USUAL._replace(any_critic=True))",
        "@gradient(OFF_PAC, on_policy=USUAL._replace(any_critic=True))",
    ),
    (
        ACTOR_CRITIC,
        "@gradient(BIASED, on_policy=USUAL._replace(any_critic=True))",
        "@gradient(BIASED)",
    ),
    (
        ACTOR_CRITIC,
        "@gradient(BIASED, on_policy=USUAL._replace(any_critic=True))",
        "@gradient(BIASED, on_policy=USUAL)",
    ),
    (
        ACTOR_CRITIC,
        "@gradient(OFF_PAC, on_policy=USUAL._replace(any_critic=True))",
        "@gradient(OFF_PAC)",
    ),
    (
        ACTOR_CRITIC,
        "@gradient(OFF_PAC, on_policy=USUAL._replace(any_critic=True))",
        "@gradient(OFF_PAC._replace(any_critic=True))",
    ),
    (
        TRUST_REGION,
        "Gradient(BEHAVIOUR, BEHAVIOUR, discounted=False)",
        "Gradient(BEHAVIOUR, BEHAVIOUR)",
    ),
    (
        TRUST_REGION,
        "Gradient(BEHAVIOUR, BEHAVIOUR, discounted=False)",
        "Gradient(BEHAVIOUR, 'θ', discounted=False)",
    ),
    (TRUST_REGION, "    BIASED,\n    on_policy=USUAL", "    BIASED"),
    (TRUST_REGION, "    BIASED,\n    on_policy=USUAL", "    USUAL"),
    (
        TRUST_REGION,
        'clip that no ratio reaches, trpo",\n        {"clip": torch.inf}',
        'clip that no ratio reaches, trpo",\n        {"clip": 0.2}',
    ),
    (TRUST_REGION, "@gradient(BIASED, on_policy=USUAL)\ndef geppo", "@gradient(BIASED)\ndef geppo"),
    (TRUST_REGION, "    BIASED,\n    on_policy=UNBIASED", "    UNBIASED"),
    (TRUST_REGION, "    BIASED,\n    on_policy=UNBIASED", "    BIASED"),
    (TRUST_REGION, '{"delta": 1.0}', '{"delta": 0.5}'),
    (TRUST_REGION, '{"temperature": torch.inf}', '{"temperature": 1.0}'),
    (TRUST_REGION, "    BIASED,\n    on_policy=BIASED", "    UNBIASED,\n    on_policy=BIASED"),
    (GROUPS, "    BIASED,\n    on_policy=BIASED", "    BIASED,\n    on_policy=UNBIASED"),
    (GROUPS, "(size - 1) / size", "1.0"),
    (
        GROUPS,
        "on_policy=UNBIASED._replace(factor=lambda size: (size - 1) / size)",
        "on_policy=BIASED",
    ),
    (GROUPS, "@gradient(BIASED, on_policy=UNBIASED)\ndef rloo", "@gradient(BIASED)\ndef rloo"),
    (GROUPS, "@gradient(BIASED, on_policy=UNBIASED)\ndef rloo", "@gradient(UNBIASED)\ndef rloo"),
    (GROUPS, "@gradient(BIASED, on_policy=UNBIASED)\ndef topr", "@gradient(BIASED)\ndef topr"),
    (
        GROUPS,
        "lambda sample, advantages: grpo(sample, advantages)",
        "lambda sample, advantages: dr_grpo(sample, advantages)",
    ),
    (
        GROUPS,
        "lambda sample, advantages: dapo(sample, advantages)",
        "lambda sample, advantages: rloo(sample, advantages)",
    ),
    (MISMATCH, "import BIASED, Identity", "import UNBIASED as BIASED, Identity"),
    (MISMATCH, '{"minimum": 0.0, "maximum": math.inf}', "{}"),
    (MISMATCH, "advantages, maximum=math.inf", "advantages, maximum=1.0"),
    (COMPOSING, "expectation=BIASED,", "expectation=recipe.expectation,"),
    (EXPECTATION, "UNBIASED = Expectation(GRADIENT)", "UNBIASED = Expectation(None)"),
    (
        EXPECTATION,
        "CONSISTENT = Expectation(GRADIENT, consistent=True)",
        "CONSISTENT = Expectation(GRADIENT)",
    ),
    (RECIPE, "Gradient(TARGET, TARGET, expectation.gradient.discounted)", "expectation.gradient"),
    (GOLDEN, "SURROGATE = Gradient(BEHAVIOUR, BEHAVIOUR)", "SURROGATE = Gradient(TARGET, TARGET)"),
    (GOLDEN, "BEHAVIOUR_CONTINUES._replace(discounted=False)", "BEHAVIOUR_CONTINUES"),
    (GOLDEN, 'ALL["balance_heuristic"]), GRADIENT', 'ALL["balance_heuristic"]), OFF_PAC'),
]

PROOF = [
    (PROBLEM, "self.discount**t if discounted else 1.0", "1.0"),
    (PROBLEM, "self.discount * values[t + 1]", "values[t + 1]"),
    (PROBLEM, "policy[s] * advantage", "advantage"),
    (PROBLEM, "policy[s] @ self.transition[s]", "self.transition[s].mean(0)"),
    (DECLARED, "EQUAL = 1e-6", "EQUAL = 0.0"),
    (DECLARED, "g != declared and relative_error(mean", "g == declared and relative_error(mean"),
    (DECLARED, "elif error < EQUAL:", "elif False:"),
    (DECLARED, "if expectation.any_critic:", "if False:"),
    (DECLARED, '("on-policy", recipe.on_policy, targets),', ""),
    (DECLARED, "reached = limit if expectation.consistent else mean", "reached = golden"),
    (DECLARED, "reached = limit if expectation.consistent else mean", "reached = mean"),
    (DECLARED, 'outcome.errors["identity"] = self', 'outcome.errors["identity"] = 0 * self'),
    (DECLARED, 'outcome.errors["formula"] = _', 'outcome.errors["formula"] = 0 * _'),
    (DECLARED, "max(errors)}", "0 * max(errors)}"),
    (DECLARED, "g not in equal and relative_error(limit", "False and relative_error(limit"),
    (CHECK, "TOLERANCE = 1e-9", "TOLERANCE = 1e9"),
    (CHECK, "not self.undeclared and all(", "all("),
    (CHECK, "and all(e <= TOLERANCE for e in self.errors.values())", ""),
    (CHECK, "if _recipe_row(trial, name, recipe).passed:", "if True:"),
    (BATCHES, "case.probability[members].prod(1) * losses", "losses"),
    (BATCHES, "return case.gradient(-mean)", "return case.gradient(mean)"),
    (
        CASES,
        "self._at_states(self.problem.occupancy[z]).log()",
        "self._at_states(self.problem.occupancy[z])",
    ),
    (CASES, "self.sample.reward_to_go - self.value(self.behaviour)", "self.sample.reward_to_go"),
    (TRAJECTORIES, "probability[path] * successors[path, action, state]", "probability[path]"),
    (
        TRAJECTORIES,
        "paths.append((probability[ends], states[ends], actions[ends]))",
        "paths.append((probability[ends] / 2, states[ends], actions[ends]))",
    ),
    (FORMULAS, "ratio > centre + high", "ratio > centre + 9"),
    (FORMULAS, "min(maximum, math.prod(x.ratios))", "math.prod(x.ratios)"),
    (NUMERICS, "if value.shape != golden.shape", "if value.shape == golden.shape"),
]

MUTATIONS = RECIPES + LABELS + PROOF
