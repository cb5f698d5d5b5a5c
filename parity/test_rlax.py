"""rlax: one row at a time, its holes deleted; it takes ratios, reweigh their logarithms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import rlax
import torch
from rlax._src.multistep import importance_corrected_td_errors
from rollouts import gradient, rollouts

import reweigh as rw
from reweigh import advantages, recipes, reduce, surrogates, weights

GAMMA = 0.97
compiled = functools.cache(jax.jit)  # one compilation for each length of a row


def array(x):
    return jnp.asarray(x.detach().numpy())


class Row:
    """The arguments that rlax's functions share, of one row."""

    def __init__(self, batch, i):
        self.r_t = array(batch.row(batch.rewards, i))
        self.discount_t = jnp.full_like(self.r_t, GAMMA)
        self.v_tm1 = array(batch.row(batch.values, i))
        self.v_t = jnp.append(self.v_tm1[1:], float(batch.bootstrap[i]))
        self.rho_tm1 = array(batch.row(batch.target - batch.old, i).exp())

    @property
    def five(self):
        return self.v_tm1, self.v_t, self.r_t, self.discount_t, self.rho_tm1


def every_row(batch, function):
    """What a function of a row's number gives for all rows, end to end."""
    return np.concatenate([np.asarray(function(i)) for i in range(len(batch.mask))])


def critic(batch):
    return batch.flat(batch.rewards), batch.flat(batch.values), batch.bootstrap


def bounded(batch, maximum=1.0, leak=0.0):
    return weights.leaky_truncate(
        batch.ratios(), batch.segments, maximum=maximum, leak=leak
    ).log_weights


def vtrace(batch, *, max_rho=1.0, leak=0.0, **knobs):
    """With traces bounded by 1, as in rlax."""
    bounds = bounded(batch, max_rho, leak), bounded(batch, leak=leak)
    return advantages.vtrace(*critic(batch), *bounds, batch.segments, discount=GAMMA, **knobs)


SETTINGS = [(1.0, 1.0, 1.0), (0.9, 2.0, 1.0), (0.8, 0.7, 1.5), (1.0, 5.0, 0.5)]


@pytest.mark.parametrize(("trace_lambda", "max_rho", "max_rho_advantage"), SETTINGS)
@pytest.mark.parametrize("leak", [0.0, 0.3, 1.0])
def test_vtrace(agree, trace_lambda, max_rho, max_rho_advantage, leak):
    batch = rollouts(1)
    ours = vtrace(batch, max_rho=max_rho, leak=leak, trace_lambda=trace_lambda)
    name = "vtrace" if leak == 0.0 else "leaky_vtrace"
    call = f"advantages.vtrace({'truncate' if leak == 0.0 else 'leaky_truncate'})"

    def theirs(i):
        given = Row(batch, i).five
        if leak == 0.0:
            return compiled(rlax.vtrace_td_error_and_advantage)(
                *given, trace_lambda, max_rho, max_rho_advantage
            )
        return compiled(rlax.leaky_vtrace_td_error_and_advantage)(
            *given, 1 - leak, trace_lambda, max_rho, max_rho_advantage
        )

    agree(
        "rlax",
        f"`{name}` and `{name}_td_error_and_advantage`: errors",
        f"{call}.targets - values",
        batch.steps(ours.targets) - batch.steps(batch.values),
        every_row(batch, lambda i: theirs(i).errors),
    )
    # For λ < 1 rlax mixes the target and the value of the next state, and so weighs with λ once
    # more than the paper, whose advantage is of r + γ v.
    own = bounded(batch, max_rho_advantage, leak).exp()
    full = own * (ours.action_values - batch.flat(batch.values))
    one_step = advantages.gae(*critic(batch), batch.segments, discount=GAMMA, trace_lambda=0.0)
    mixed = trace_lambda * full + (1 - trace_lambda) * own * one_step
    plain = trace_lambda == 1.0
    agree(
        "rlax",
        f"`{name}_td_error_and_advantage`: advantages, {'λ = 1' if plain else 'λ < 1'}",
        f"ρ * ({call}.action_values - values)"
        if plain
        else f"ρ * (λ * ({call}.action_values - values) + (1 - λ) * advantages.gae(λ=0))",
        batch.steps(full if plain else mixed),
        every_row(batch, lambda i: theirs(i).pg_advantage),
    )


def test_plain_errors_are_those_of_the_pair(agree):
    batch = rollouts(2)
    for name, bound, leak in (("vtrace", "truncate", 0.0), ("leaky_vtrace", "leaky_truncate", 0.4)):
        estimate, extra = vtrace(batch, leak=leak), (1 - leak,) if leak else ()
        agree(
            "rlax",
            f"`{name}` and `{name}_td_error_and_advantage`: errors",
            f"advantages.vtrace({bound}).targets - values",
            batch.steps(estimate.targets) - batch.steps(batch.values),
            every_row(batch, lambda i: compiled(getattr(rlax, name))(*Row(batch, i).five, *extra)),  # noqa: B023
        )


@pytest.mark.parametrize("trace_lambda", [1.0, 0.7, 0.0])
def test_importance_corrected_td_errors(agree, trace_lambda):
    batch = rollouts(3)
    ours = advantages.vtrace(
        *critic(batch),
        batch.ratios(),
        batch.ratios(),
        batch.segments,
        discount=GAMMA,
        trace_lambda=trace_lambda,
    )

    def theirs(i):
        row = Row(batch, i)
        values = jnp.append(row.v_tm1, row.v_t[-1])
        return compiled(importance_corrected_td_errors)(
            row.r_t, row.discount_t, row.rho_tm1, jnp.float32(trace_lambda), values
        )

    agree(
        "rlax",
        "`importance_corrected_td_errors` (not exported)",
        "advantages.vtrace(...).targets - values, unbounded",
        batch.steps(ours.targets) - batch.steps(batch.values),
        every_row(batch, theirs),
    )


def targets_of(batch, q, c):
    """The general return with traces `c` [B, T]."""

    def of_row(i):
        row, trace = Row(batch, i), array(batch.row(c, i))
        q_t = array(batch.row(q, i))
        return compiled(rlax.general_off_policy_returns_from_q_and_v)(
            q_t[1:], row.v_t, row.r_t, row.discount_t, trace[1:]
        )

    return every_row(batch, of_row)


@pytest.mark.parametrize("trace_lambda", [1.0, 0.6])
def test_action_value_targets(agree, trace_lambda):
    batch = rollouts(4)
    flat, segments = batch.flat, batch.segments
    q = batch.advantages
    given = (flat(batch.rewards), flat(batch.values), flat(q), batch.bootstrap)
    knobs = {"discount": GAMMA, "trace_lambda": trace_lambda}
    rho = (batch.target - batch.old).exp()
    general = "`general_off_policy_returns_from_q_and_v`"
    retrace = advantages.retrace(*given, batch.ratios(), segments, **knobs)
    agree(
        "rlax",
        f"{general}, c = λ min(1, ρ)",
        "advantages.retrace(...)",
        batch.steps(retrace),
        targets_of(batch, q, trace_lambda * rho.clamp(max=1.0)),
    )
    agree(
        "rlax",
        f"{general}, c = λ π",
        "advantages.tree_backup(...)",
        batch.steps(advantages.tree_backup(*given, flat(batch.target), segments, **knobs)),
        targets_of(batch, q, trace_lambda * batch.target.exp()),
    )
    agree(
        "rlax",
        f"{general}, c = λ",
        "advantages.q_pi_lambda(...)",
        batch.steps(advantages.q_pi_lambda(*given, segments, **knobs)),
        targets_of(batch, q, torch.full_like(rho, trace_lambda)),
    )
    agree(
        "rlax",
        f"{general}, c = ρ",
        "advantages.corrected_action_values(...)",
        batch.steps(
            advantages.corrected_action_values(*given, batch.ratios(), segments, discount=GAMMA)
        ),
        targets_of(batch, q, rho),
    )

    def continuous(i):
        row = Row(batch, i)
        q_tm1 = array(batch.row(q, i))
        log_rhos = array(batch.row(batch.target - batch.old, i))
        return compiled(rlax.retrace_continuous)(
            q_tm1, q_tm1[1:], row.v_t, row.r_t, row.discount_t, log_rhos[1:], trace_lambda
        )

    agree(
        "rlax",
        "`retrace_continuous`",
        "advantages.retrace(...) - action_values",
        batch.steps(retrace) - batch.steps(q),
        every_row(batch, continuous),
    )


@pytest.mark.parametrize("trace_lambda", [1.0, 0.6])
def test_retrace_over_discrete_actions(agree, trace_lambda):
    batch = rollouts(5)
    rows, horizon = batch.mask.shape
    g = torch.Generator().manual_seed(5)
    q = torch.randn(rows, horizon, 3, generator=g)
    pi, mu = (torch.randn(rows, horizon, 3, generator=g).log_softmax(-1) for _ in range(2))
    action = torch.randint(3, (rows, horizon), generator=g)

    def of_action(x):
        return x.gather(-1, action.unsqueeze(-1)).squeeze(-1)

    flat, segments = batch.flat, batch.segments
    # rlax wants the state after the last step as well: it has zero values there, so the row ends.
    ours = advantages.retrace(
        flat(batch.rewards),
        flat((pi.exp() * q).sum(-1)),
        flat(of_action(q)),
        torch.zeros(rows),
        rw.log_ratios(flat(of_action(pi)), flat(of_action(mu)), segments),
        segments,
        discount=GAMMA,
        trace_lambda=trace_lambda,
    )

    def theirs(i):
        here = batch.mask[i]
        r_t = array(batch.rewards[i, here])

        def after(x):
            """The next state's, and anything after the last."""
            return jnp.concatenate([array(x[i, here])[1:], jnp.zeros_like(array(x[i, here]))[:1]])

        return compiled(rlax.retrace)(
            array(q[i, here]),
            after(q),
            array(action[i, here]),
            after(action),
            r_t,
            jnp.full_like(r_t, GAMMA).at[-1].set(0.0),
            after(pi.exp()),
            after(of_action(mu).exp()).at[-1].set(1.0),
            trace_lambda,
        )

    agree(
        "rlax",
        "`retrace`",
        "advantages.retrace(...) - action_values",
        batch.steps(ours) - batch.steps(of_action(q)),
        every_row(batch, theirs),
    )


def test_surrogates(agree):
    batch = rollouts(9)
    segments = batch.segments
    clipped = reduce.loss(
        surrogates.clipped_ratio(batch.ratios(), batch.flat(batch.advantages), segments, clip=0.2),
        segments,
        divisor=reduce.count_steps(segments),
    )
    old, gain = array(batch.steps(batch.old)), array(batch.steps(batch.advantages))
    theirs, slope = jax.value_and_grad(
        lambda target: rlax.clipped_surrogate_pg_loss(jnp.exp(target - old), gain, 0.2)
    )(array(batch.steps(batch.target)))
    call = "loss(surrogates.clipped_ratio(...), divisor=count_steps)"
    agree("rlax", "`clipped_surrogate_pg_loss`", call, clipped, theirs)
    agree(
        "rlax",
        "`clipped_surrogate_pg_loss`",
        call,
        batch.steps(gradient(clipped, batch.target)),
        slope,
    )

    g = torch.Generator().manual_seed(6)
    logits = torch.randn(*batch.mask.shape, 4, generator=g).requires_grad_()
    action = torch.randint(4, batch.mask.shape, generator=g)
    weight = batch.values.abs()
    log_prob = logits.log_softmax(-1).gather(-1, action.unsqueeze(-1)).squeeze(-1)
    weighted = reduce.loss(
        surrogates.weighted_log_prob(
            batch.flat(log_prob), batch.flat(weight), batch.flat(batch.advantages), segments
        ),
        segments,
        divisor=reduce.count_steps(segments),
    )
    theirs, slope = jax.value_and_grad(
        lambda x: rlax.policy_gradient_loss(
            x, array(batch.steps(action)), gain, array(batch.steps(weight))
        )
    )(array(logits[batch.mask]))
    call = "loss(surrogates.weighted_log_prob(...), divisor=count_steps)"
    agree("rlax", "`policy_gradient_loss`", call, weighted, theirs)
    agree(
        "rlax",
        "`policy_gradient_loss`",
        call,
        gradient(weighted, logits)[batch.mask],
        slope,
    )


def test_impala(agree):
    batch = rollouts(10)
    g = torch.Generator().manual_seed(10)
    logits = torch.randn(*batch.mask.shape, 4, generator=g).requires_grad_()
    action = torch.randint(4, batch.mask.shape, generator=g)
    batch.target = logits.log_softmax(-1).gather(-1, action.unsqueeze(-1)).squeeze(-1)
    rewards, values, bootstrap = critic(batch)
    ours = recipes.impala(batch.sample(rewards=rewards, discount=GAMMA), values, bootstrap)

    def theirs(i):
        gain = rlax.vtrace_td_error_and_advantage(*Row(batch, i).five).pg_advantage
        taken, unit = array(action[i, batch.mask[i]]), jnp.ones_like(gain)

        def total(x):
            return rlax.policy_gradient_loss(x, taken, gain, unit) * len(gain) / len(batch.mask)

        return jax.value_and_grad(total)(array(logits[i, batch.mask[i]]))

    rows = [theirs(i) for i in range(len(batch.mask))]
    row = ("rlax", "`vtrace_td_error_and_advantage`, `policy_gradient_loss`", "recipes.impala(...)")
    agree(*row, ours, sum(value for value, _ in rows))
    slope = np.concatenate([np.asarray(slope) for _, slope in rows])
    agree(*row, gradient(ours, logits)[batch.mask], slope)


def test_its_advantage_carries_a_gradient(differ):
    batch = rollouts(7, rows=1)
    row = Row(batch, 0)

    def total(v_tm1):
        return rlax.vtrace_td_error_and_advantage(v_tm1, *row.five[1:]).pg_advantage.sum()

    slope = np.abs(np.asarray(jax.grad(total)(row.v_tm1))).max()
    assert slope > 0.1

    values = batch.values.clone().requires_grad_()
    ours = advantages.vtrace(
        batch.flat(batch.rewards),
        batch.flat(values),
        batch.bootstrap,
        batch.ratios(),
        batch.ratios(),
        batch.segments,
        discount=GAMMA,
    )
    assert not any(x.requires_grad for x in ours)
    differ(
        "rlax",
        "largest derivative of V-trace's policy-gradient advantage with respect to the values",
        f"{slope:.2f}",
        "none: a constant",
        "reweigh: a constant; rlax leaves that to `policy_gradient_loss`",
    )


def test_a_masked_step_leaves_its_value_in_the_advantage_before_it(agree, differ):
    """Its `sample_mask` against a hole."""
    batch = rollouts(8, rows=1, horizon=6)
    batch.mask = torch.tensor([[True, True, False, True, True, True]])
    values, rewards = batch.values[0], batch.rewards[0]
    # The caller's part: the value that follows step 1 is that of step 3.
    v_t = torch.stack([values[1], values[3], values[0], values[4], values[5], batch.bootstrap[0]])
    rho = (batch.target - batch.old)[0].exp().detach()

    def theirs(v_tm1):
        return rlax.vtrace_td_error_and_advantage(
            array(v_tm1),
            array(v_t),
            array(rewards),
            jnp.full(6, GAMMA),
            array(rho),
            sample_mask=array(batch.mask[0]),
        )

    ours = vtrace(batch)
    errors = batch.steps(ours.targets) - batch.steps(batch.values)
    call = "advantages.vtrace(...).targets - values, Segments with a hole"
    there = theirs(values).errors[batch.mask[0].numpy()]
    agree("rlax", "`vtrace(sample_mask=...)`: errors", call, errors, there)

    other = values.clone()
    other[2] += 100.0
    moved = theirs(other).pg_advantage - theirs(values).pg_advantage
    assert abs(float(moved[1]) - GAMMA * min(1.0, float(rho[1])) * 100.0) < 1e-3
    batch.values = other.unsqueeze(0)
    again = vtrace(batch)
    assert torch.equal(again.advantages, ours.advantages)
    other[2] = torch.nan
    assert np.isnan(np.asarray(theirs(other).errors)).any()
    differ(
        "rlax",
        "V-trace advantage before a masked step, as the masked step's value grows by 100",
        f"{float(moved[1]):+.1f}; NaN there gives NaN",
        "+0.0",
        "reweigh: the masked step does not exist",
    )
