"""State ratios and what they are multiplied with."""

TESTS = [
    "test_core_marginal.py",
    "test_core_marginal_values.py",
    "test_core_marginal_kernel.py",
    "test_core_segments.py",
]

VISITS = "core/marginal/visits.py"
FIXED_POINTS = "core/marginal/fixed_points.py"
VALUES = "core/marginal/action_values.py"
KERNEL = "core/marginal/kernel.py"
CLASSIFIER = "core/marginal/classifier.py"
CHAINS = "core/marginal/chains.py"

MUTATIONS = [
    (CHAINS, "so_far[:-stride] @ so_far[stride:]", "so_far[stride:] @ so_far[:-stride]"),
    (CHAINS, "so_far, stride = transitions[:-1], 1", "so_far, stride = transitions[1:], 1"),
    (CHAINS, "transition = transition @ transition", "transition = transition @ known[0].diag()"),
    ("core/sums.py", ".masked_fill(~segments.inside, -torch.inf)", ""),
    ("core/sums.py", "(x - largest.gather(-1, group)).exp()", "x.exp()"),
    (VISITS, "return segments.is_last & terminated", "return terminated"),
    (VISITS, "torch.where(absorbs, 0.0, weights)\n        moved", "weights\n        moved"),
    (VISITS, "segments.next(states, final)", "states.roll(-1)"),
    (VISITS, "torch.where(reached, self.final_states, 0)", "self.final_states"),
    (VISITS, "torch.where(absorbs, ended, self.moves(segments)[1])", "self.moves(segments)[1]"),
    (VISITS, "features * weights, cells", "features, cells"),
    (VISITS, "self.ridge * scale", "self.ridge"),
    (VISITS, "Cells(segments.time, ", "Cells(segments.offset, "),
    (FIXED_POINTS, "- discount * transition.mT", "- discount * transition"),
    (FIXED_POINTS, " + torch.outer(logged, total)", ""),
    (FIXED_POINTS, "initial + times(discount, flow)", "initial + flow"),
    (FIXED_POINTS, "torch.where(after > 0, before / after, 0.0)", "torch.ones_like(after)"),
    (FIXED_POINTS, "ratios.clamp(min=0.0)", "ratios"),
    (FIXED_POINTS, "torch.where(segments.is_first, 0.0, ratios)", "ratios"),
    (FIXED_POINTS, "(ratios.log() + segments", "(segments"),
    (
        FIXED_POINTS,
        "visits.transitions(log_ratios, starts,",
        "visits.transitions(log_ratios, 0 * starts,",
    ),
    (VALUES, "torch.where(ends(visits.terminated, segments), 0.0, taken)", "taken"),
    (VALUES, "[:, :count].flip(0)", "[:, :count]"),
    (
        VALUES,
        "backup[:count, count] = _under(policy, reward)",
        "backup[:count, count] = reward.mean(1)",
    ),
    (KERNEL, "+ (1 - discount) * starts", ""),
    (
        KERNEL,
        "torch.where(stops.unsqueeze(1), starts, ",
        "torch.where(stops.unsqueeze(1), 0 * starts, ",
    ),
    (
        KERNEL,
        "_residuals(phi, drift, ~out, out, ridges)",
        "_residuals(phi, drift, out, out, ridges)",
    ),
    (KERNEL, "square().div(-2)", "square().div(-1)"),
    (KERNEL, "estimate.clamp(min=0.0)", "estimate"),
    (KERNEL, "m * len(segments) / (m * restarts).sum()", "m / (1 - discount)"),
    (KERNEL, "distances[distances > 0]", "distances"),
    (KERNEL, "2 * math.pi * torch.rand", "torch.rand"),
    (CLASSIFIER, "logsigmoid(logits) - share.log()", "logsigmoid(logits)"),
    (CLASSIFIER, "logits - share.logit()", "logits"),
    (CLASSIFIER, "penalty[-1] = 0.0", ""),
    (CLASSIFIER, ", (largest @ gradient)[None]]", "]"),
    (CLASSIFIER, "/ size + penalty * beta", "/ size"),
    (
        "core/returns.py",
        "rewards, log_ratios, zero, zero, segments",
        "rewards, 0 * log_ratios, zero, zero, segments",
    ),
    (
        "core/marginal/kernel.py",
        "torch.where(mass.squeeze(1) > 0, squares[1:], torch.inf)",
        "squares[1:]",
    ),
]
