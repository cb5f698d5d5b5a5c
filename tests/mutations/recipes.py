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
    (
        EXACT,
        "returns.weighted_reward_to_go(rewards, prefix,",
        "returns.weighted_reward_to_go(rewards, ratios,",
    ),
    (
        EXACT,
        "discounted = returns.discount_from_start(segments, discount=discount) * continuation",
        "discounted = continuation",
    ),
    (EXACT, "log_prob_target, whole, discounted", "log_prob_target, whole, continuation"),
    (EXACT, "log_prob_target, marginal, discounted", "log_prob_target, marginal, values"),
    (
        ACTOR_CRITIC,
        "log_probs_target, before, action_values",
        "log_probs_target, from_start, action_values",
    ),
    (ACTOR_CRITIC, "discount * after - q", "discount * after"),
    (ACTOR_CRITIC, "unit, trace.advantages", "unit, trace.targets"),
    (ACTOR_CRITIC, 'estimate - segments.as_float64("values", values)', "estimate"),
    (
        ACTOR_CRITIC,
        "weights.truncate(ratios, segments, maximum=maximum)",
        "weights.truncate(ratios, segments, maximum=1e9)",
    ),
    (ACTOR_CRITIC, "action_values.detach() - v.unsqueeze(1)", "action_values.detach()"),
    (ACTOR_CRITIC, "loss(sampled + corrected", "loss(sampled - corrected"),
    (TRUST_REGION, "ratios, step, advantages", "ratios, 1 + 0 * step, advantages"),
    (TRUST_REGION, "clip=clip / mean_age", "clip=clip"),
    (TRUST_REGION, "(proportions.to(shares.device) / shares)", "proportions"),
    (TRUST_REGION, "return -surrogates.pois_bound", "return surrogates.pois_bound"),
    (TRUST_REGION, "torch.where(segments.is_first, to_go, 0.0)", "rewards"),
    (
        GROUPS,
        "adv.group_relative(",
        "2 * adv.group_relative(",
    ),
    (
        GROUPS,
        "loss(per_episode_mean(objective, segments), segments, divisor=divisor)",
        "loss(objective, segments, divisor=divisor)",
    ),
    (GROUPS, "divisor=divisor * horizon", "divisor=horizon"),
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
    (MIXTURES, "proportion * sum(episodes) / proportion.new_tensor(episodes)", "proportion"),
    (MIXTURES, "share=share[own]", "share=0.0"),
    (
        MIXTURES,
        "discounted = returns.discount_from_start(segments, discount=discount) * continuation",
        "discounted = continuation",
    ),
    (
        MIXTURES,
        "returns.weighted_reward_to_go(rewards, prefix,",
        "returns.weighted_reward_to_go(rewards, 0 * prefix,",
    ),
]
