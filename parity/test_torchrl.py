"""TorchRL: rows packed end to end in one time axis, cut by `done`; it has no holes."""

import math

import pytest
import torch
from rollouts import gradient, rollouts
from torchrl.objectives.llm.grpo import CISPOLoss, GRPOLoss
from torchrl.objectives.value.functional import (
    generalized_advantage_estimate,
    td_lambda_return_estimate,
    vec_generalized_advantage_estimate,
    vec_td_lambda_return_estimate,
    vtrace_advantage_estimate,
)

import reweigh as rw
from reweigh import advantages, reduce, surrogates, weights

GAMMA = 0.97
PLAIN_AND_VECTORISED_GAE = (generalized_advantage_estimate, vec_generalized_advantage_estimate)
PLAIN_AND_VECTORISED_RETURN = (td_lambda_return_estimate, vec_td_lambda_return_estimate)


class Packed:
    """The rows of a batch end to end, as TorchRL takes them: `[1, S, 1]`."""

    def __init__(self, batch):
        self.batch = batch
        lengths = batch.mask.sum(1)
        last = lengths.cumsum(0) - 1
        self.values = self.of(batch.values)
        following = self.values.roll(-1, dims=1)
        following[0, last, 0] = batch.bootstrap
        self.given = (self.values, following, self.of(batch.rewards))
        self.done = torch.zeros_like(self.values, dtype=torch.bool)
        self.done[0, last, 0] = True
        # A row that terminated and one that was cut off differ in this flag alone.
        self.terminated = self.done.clone()
        self.terminated[0, last, 0] = batch.bootstrap == 0

    def of(self, x):
        return self.batch.steps(x.detach()).reshape(1, -1, 1)

    @property
    def ours(self):
        flat = self.batch.flat
        return flat(self.batch.rewards), flat(self.batch.values), self.batch.bootstrap


@pytest.mark.parametrize(("rho", "c"), [(1.0, 1.0), (2.0, 1.0), (1.5, 0.8), (math.inf, math.inf)])
def test_vtrace(agree, rho, c):
    batch = rollouts(11)
    packed = Packed(batch)
    theirs, targets = vtrace_advantage_estimate(
        GAMMA,
        packed.of(batch.target),
        packed.of(batch.old),
        *packed.given,
        packed.done,
        packed.terminated,
        rho_thresh=rho,
        c_thresh=c,
    )
    ours = advantages.vtrace(
        *packed.ours,
        *(
            weights.truncate(batch.ratios(), batch.segments, maximum=x).log_weights
            for x in (rho, c)
        ),
        batch.segments,
        discount=GAMMA,
    )
    function, call = "`vtrace_advantage_estimate`", "advantages.vtrace(...)"
    agree(
        "torchrl",
        f"{function}: values",
        f"{call}.targets",
        batch.steps(ours.targets),
        targets.flatten(),
    )
    agree(
        "torchrl",
        f"{function}: advantages",
        f"{call}.advantages",
        batch.steps(ours.advantages),
        theirs.flatten(),
    )


def test_the_truncation_leak_is_closed(differ):
    """Up to 0.14.0 the advantage before a cut read the next episode's value: [0, 99, 0, 0]."""
    values = torch.tensor([1.0, 1.0, 100.0, 100.0])
    following = torch.tensor([1.0, 1.0, 100.0, 100.0])
    done = torch.tensor([False, True, False, False])
    zero = torch.zeros(1, 4, 1)
    theirs, _ = vtrace_advantage_estimate(
        1.0,
        zero,
        zero,
        values.reshape(1, 4, 1),
        following.reshape(1, 4, 1),
        zero,
        done.reshape(1, 4, 1),
        torch.zeros(1, 4, 1, dtype=torch.bool),
    )
    ours = advantages.vtrace(
        torch.zeros(4),
        values,
        torch.tensor([1.0, 100.0]),
        torch.zeros(4),
        torch.zeros(4),
        rw.Segments.packed([2, 2]),
        discount=1.0,
    )
    assert theirs.flatten().tolist() == ours.advantages.tolist() == [0, 0, 0, 0]
    differ(
        "torchrl",
        "V-trace advantages, V = 1, 1, 100, 100, cut after step 1 (up to 0.14.0: 0, 99, 0, 0)",
        "0, 0, 0, 0: fixed",
        "0, 0, 0, 0",
        "equal",
    )


@pytest.mark.parametrize("trace_lambda", [0.0, 0.95, 1.0])
def test_gae_and_lambda_return(agree, trace_lambda):
    batch = rollouts(12)
    packed = Packed(batch)
    flags = (packed.done, packed.terminated)
    ours = advantages.gae(*packed.ours, batch.segments, discount=GAMMA, trace_lambda=trace_lambda)
    returns = batch.flat(batch.values) + ours
    vectorised = trace_lambda > 0  # or they raise: see below
    for function in PLAIN_AND_VECTORISED_GAE[: 1 + vectorised]:
        theirs, _ = function(GAMMA, trace_lambda, *packed.given, *flags)
        name = f"`{function.__name__}`"
        agree("torchrl", name, "advantages.gae(...)", batch.steps(ours), theirs.flatten())
    for function in PLAIN_AND_VECTORISED_RETURN[: 1 + vectorised]:
        theirs = function(GAMMA, trace_lambda, *packed.given[1:], *flags)
        name = f"`{function.__name__}`"
        agree(
            "torchrl", name, "values + advantages.gae(...)", batch.steps(returns), theirs.flatten()
        )


def test_its_vectorised_forms_want_a_trace(differ):
    packed = Packed(rollouts(12))
    with pytest.raises(IndexError):
        vec_generalized_advantage_estimate(GAMMA, 0.0, *packed.given, packed.done)
    with pytest.raises(IndexError):
        vec_td_lambda_return_estimate(GAMMA, 0.0, *packed.given[1:], packed.done)
    ours = advantages.gae(*packed.ours, packed.batch.segments, discount=GAMMA, trace_lambda=0.0)
    assert ours.isfinite().all()
    differ(
        "torchrl",
        "`vec_` GAE and λ-return at λ = 0",
        "raise IndexError",
        "the one-step values",
        "reweigh: λ = 0 is the TD error",
    )


@pytest.mark.parametrize("clip", [(0.2, 0.2), (0.2, 0.28)])
@pytest.mark.parametrize("aggregation", ["token_mean", "prompt_mean"])
def test_grpo(agree, clip, aggregation):
    batch = rollouts(15)
    segments = batch.segments
    peer = GRPOLoss(clip_epsilon=clip, aggregation=aggregation)
    per_step, _ = peer._compute_policy_objective(
        (batch.target - batch.old).unsqueeze(-1), batch.advantages.unsqueeze(-1)
    )
    theirs = peer._aggregate_loss_value(per_step, batch.mask)
    objective = surrogates.clipped_ratio(
        batch.ratios(), batch.flat(batch.advantages), segments, clip=clip[0], clip_high=clip[1]
    )
    if aggregation == "token_mean":
        call = "loss(surrogates.clipped_ratio(...), divisor=count_steps)"
        ours = reduce.loss(objective, segments, divisor=reduce.count_steps(segments))
    else:
        call = "loss(per_episode_mean(surrogates.clipped_ratio(...)))"
        ours = reduce.loss(reduce.per_episode_mean(objective, segments), segments)
    name = f"`GRPOLoss`, {aggregation}"
    agree("torchrl", name, call, ours, theirs.squeeze())
    agree(
        "torchrl",
        name,
        call,
        gradient(ours, batch.target),
        gradient(theirs.squeeze(), batch.target),
    )


def test_its_cispo_has_no_gradient_where_it_clips(agree, differ):
    """The clipped ratio is a weight on the score, not the objective: CISPO keeps every step."""
    target = torch.tensor([0.1, math.log(3.0)], requires_grad=True)
    segments = rw.Segments.packed([1, 1])
    per_step, _ = CISPOLoss(clip_epsilon=0.2)._compute_policy_objective(target, torch.ones(2))
    theirs = gradient(per_step.sum(), target)
    weight = weights.clip(target, segments, minimum=0.8, maximum=1.2).log_weights.exp()
    ours = gradient(
        reduce.loss(
            surrogates.weighted_log_prob(target, weight, torch.ones(2), segments),
            segments,
            divisor=1,
        ),
        target,
    )
    agree(
        "torchrl",
        "`CISPOLoss`: gradient inside the band",
        "loss(surrogates.weighted_log_prob(log_prob, weights.clip(ratios).exp()))",
        ours[:1],
        theirs[:1],
    )
    assert theirs[1] == 0.0
    assert abs(float(ours[1]) + 1.2) < 1e-6
    differ(
        "torchrl",
        "CISPO gradient at ratio 3, advantage 1, ε = 0.2",
        "0",
        "-1.2",
        "reweigh: the paper's clip bounds a weight and keeps the score",
    )
