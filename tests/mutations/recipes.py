"""Published estimators."""

TESTS = ["test_recipes.py"]

EXACT = "recipes/exact.py"
ACTOR_CRITIC = "recipes/actor_critic.py"
TRUST_REGION = "recipes/trust_region.py"
GROUPS = "recipes/groups.py"
MISMATCH = "recipes/mismatch.py"
MIXTURES = "recipes/mixtures.py"

MUTATIONS = [
    (
        EXACT,
        "log_prob_target, prefix, continuation",
        "log_prob_target, 1 + 0 * prefix, continuation",
    ),
    (EXACT, "returns.per_decision(rewards, prefix,", "returns.per_decision(rewards, ratios,"),
    (EXACT, "from_start * ratio", "ratio"),
    (EXACT, "from_start * whole", "whole"),
    (EXACT, "from_start * marginal", "marginal"),
    (ACTOR_CRITIC, "target, before, q", "target, prefix, q"),
    (ACTOR_CRITIC, "target, prefix, estimate.residuals", "target, before, estimate.residuals"),
    (ACTOR_CRITIC, "unit, trace.advantages", "unit, trace.targets"),
    (ACTOR_CRITIC, "step, estimate - values", "step, estimate"),
    (
        ACTOR_CRITIC,
        "weights.truncate(ratios, segments, maximum=maximum)",
        "weights.truncate(ratios, segments, maximum=1e9)",
    ),
    (ACTOR_CRITIC, "cut * (q - v.unsqueeze(1))", "cut * q"),
    (ACTOR_CRITIC, "sampled + surrogates.expected_value", "sampled - surrogates.expected_value"),
    (
        TRUST_REGION,
        "step, advantages, segments), segments)",
        "1 + 0 * step, advantages, segments), segments)",
    ),
    (TRUST_REGION, "clip=clip / mean_age", "clip=clip"),
    (TRUST_REGION, "(proportions / share)[index]", "proportions[index]"),
    (TRUST_REGION, "return -surrogates.pois_bound", "return surrogates.pois_bound"),
    (TRUST_REGION, "torch.where(segments.is_first, to_go, 0.0)", "rewards"),
    (
        GROUPS,
        "advantages = segments.spread(adv.group_relative",
        "advantages = 2 * segments.spread(adv.group_relative",
    ),
    (
        GROUPS,
        "loss(per_episode_mean(objective, segments), segments, divisor=divisor)",
        "loss(objective, segments, divisor=divisor)",
    ),
    (GROUPS, "divisor=len(segments) * horizon", "divisor=horizon"),
    (GROUPS, "adv.group_centred", "adv.leave_one_out"),
    (GROUPS, "sequence, advantages", "ratios, advantages"),
    (GROUPS, "minimum=minimum, maximum=maximum", "minimum=0.0, maximum=1e9"),
    (
        MISMATCH,
        "log_ratios(log_prob_proximal.detach(), log_prob_behaviour, segments)",
        "log_ratios(log_prob_behaviour, log_prob_proximal, segments)",
    ),
    (
        MISMATCH,
        "log_ratios(log_prob_target, log_prob_proximal, segments)",
        "log_ratios(log_prob_target, log_prob_behaviour, segments)",
    ),
    (MISMATCH, "maximum=math.inf", "maximum=1.0"),
    (MISMATCH, "advantages < 0, tapered, 1.0", "advantages > 0, tapered, 1.0"),
    (MISMATCH, "whole, segments, maximum=1.0", "ratios, segments, maximum=1.0"),
    (MIXTURES, "(proportion * len(segments) / episodes)[own]", "proportion[own]"),
    (MIXTURES, "share=share[own]", "share=0.0"),
    (MIXTURES, "from_start * counted", "counted"),
    (
        MIXTURES,
        "returns.per_decision(rewards, prefix,",
        "returns.per_decision(rewards, 0 * prefix,",
    ),
]
