"""Policies that logs need: several choices at once, tables, and any units."""

import json
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from behaviour_samples import FLOATS, NUMBER
from torch.distributions import Categorical

from reweigh.acting.environments import make, policy_description
from reweigh.acting.policy import MultiCategoricalPolicy, build, policy_of
from reweigh.acting.tabular import TabularPolicy, independent_choices
from reweigh.data import ArraySpec, PolicyStore, TrajectorySchema


def schema(observation, action, discrete=True):
    return TrajectorySchema("Some-v0", observation, action, discrete)


def stored_and_loaded(policy, description, folder):
    store = PolicyStore(folder)
    store.save(0, policy.state_dict(), metadata={"description": description})
    again = build(store.metadata(0)["description"])
    again.load_state_dict(store.load(0))
    return again


def test_several_choices_are_a_product_of_single_ones():
    logits = torch.randn(4, 3 + 5 + 2, generator=torch.Generator().manual_seed(0)).double()
    found = independent_choices(logits, [3, 5, 2])
    single = [Categorical(logits=part) for part in logits.split([3, 5, 2], 1)]
    assert (found.batch_shape, found.event_shape) == ((4,), (3,))
    total = torch.zeros(4).double()
    for action in product(range(3), range(5), range(2)):
        actions = torch.tensor(action).expand(4, 3)
        log_prob = found.log_prob(actions)
        want = sum(one.log_prob(actions[:, i]) for i, one in enumerate(single))
        torch.testing.assert_close(log_prob, want, rtol=0, atol=1e-12)
        total += log_prob.exp()
    torch.testing.assert_close(total, torch.ones(4).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(found.entropy(), sum(one.entropy() for one in single))
    modes = torch.stack([one.probs.argmax(1) for one in single], 1)
    assert torch.equal(found.mode, modes)
    assert found.log_prob(torch.tensor([2, 4, 2]).expand(4, 3)).eq(-torch.inf).all()


def test_choices_of_which_there_are_fewer_give_no_nan_anywhere():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        policy = MultiCategoricalPolicy((3,), 0, [2, 7, 4], (8,))
        seen, distribution = torch.randn(50, 3), None
        distribution = policy(seen)
        sampled = distribution.sample()
    assert (sampled < torch.tensor([2, 7, 4])).all() and (sampled >= 0).all()
    for made in (distribution.log_prob(sampled), distribution.entropy()):
        assert made.shape == (50,) and made.isfinite().all()
        gradients = torch.autograd.grad(made.sum(), list(policy.parameters()), retain_graph=True)
        assert all(g.isfinite().all() for g in gradients)
        assert any(g.abs().max() > 0 for g in gradients)
    assert distribution.entropy().detach().max() <= np.log(2 * 7 * 4) + 1e-5


def test_a_policy_fits_the_spaces_of_its_log():
    pair = replace(ArraySpec("int64", (2,)), choices=(3, 5))
    state, three = replace(NUMBER, choices=(7,)), replace(NUMBER, choices=(3,))
    box = ArraySpec("float32", (2, 3))
    for observation, action, discrete, shape in (
        (box, three, True, ()),
        (state, pair, True, (2,)),
        (FLOATS, replace(pair, shape=(1,), choices=(4,)), True, (1,)),
        (state, box, False, (2, 3)),
        (pair, ArraySpec("float32", ()), False, ()),
    ):
        for standardise in (False, True):
            of = schema(observation, action, discrete)
            policy = build(policy_of(of, (4,), standardise=standardise))
            seen = torch.zeros(6, *observation.shape, dtype=getattr(torch, observation.dtype))
            distribution = policy(seen)
            assert distribution.log_prob(distribution.sample()).shape == (6,)
            assert distribution.event_shape == shape
    one_hot = json.loads(policy_of(schema(state, three), (4,)))
    assert one_hot["observation_classes"] == 7 and one_hot["actions"] == 3
    assert "standardise" not in one_hot


def test_an_environment_and_its_log_ask_for_the_same_policy():
    described = json.loads(policy_description(make("CartPole-v1"), (16, 8)))
    assert described == {
        "kind": "categorical",
        "actions": 2,
        "observation_shape": [4],
        "observation_classes": 0,
        "hidden": [16, 8],
    }


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (NUMBER, r"Some-v0 does not say how many choices .* \(int64\[\]\).*import it again"),
        (ArraySpec("int64", (1, 2), (2, 2)), r"actions of shape \[1, 2\]"),
    ],
)
def test_choices_must_be_known(action, message):
    with pytest.raises(ValueError, match=message):
        policy_of(schema(FLOATS, action), (4,))


def test_each_combination_of_numbers_has_a_row_of_its_own(tmp_path):
    description = json.dumps(
        {
            "kind": "tabular",
            "observation_choices": [2, 3],
            "action_shape": [2],
            "choices": [4, 2],
        }
    )
    policy = build(description)
    assert isinstance(policy, TabularPolicy)
    seen = torch.tensor(list(product(range(2), range(3))))
    assert policy.row(seen).tolist() == list(range(6))
    policy.logits.data.copy_(torch.arange(36.0).reshape(6, 6).sin())
    again = stored_and_loaded(policy, description, tmp_path)
    actions = torch.tensor([[3, 1]] * 6)
    want = policy.logits[:, :4].log_softmax(1)[:, 3] + policy.logits[:, 4:].log_softmax(1)[:, 1]
    torch.testing.assert_close(again(seen).log_prob(actions), want, rtol=0, atol=1e-14)
    for outside in ([[0, 3]], [[2, 0]], [[-1, 0]]):
        with pytest.raises(ValueError, match=r"observation \[.*\] is not in the policy's table"):
            policy(torch.tensor(outside))


def test_standardised_densities_are_those_of_the_log_s_units(tmp_path):
    description = policy_of(schema(FLOATS, FLOATS, discrete=False), (8,), standardise=True)
    policy = build(description)
    mean, deviation = torch.tensor([5.0, -300.0]).double(), torch.tensor([0.1, 40.0]).double()
    policy.measure("observation", torch.tensor([1e9, 0.0]), torch.tensor([1e-3, 0.0]))
    policy.measure("action", mean, deviation)
    z = torch.randn(9, 2, generator=torch.Generator().manual_seed(0)).double()
    seen = torch.stack([1e9 + 1e-3 * z[:, 0], z[:, 1]], 1)
    inner = policy.policy(torch.stack([(seen[:, 0] - 1e9) / 1e-3, seen[:, 1]], 1).float())
    found = stored_and_loaded(policy, description, tmp_path)(seen)
    want = inner.log_prob(z) - deviation.log().sum()
    torch.testing.assert_close(found.log_prob(mean + deviation * z), want, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.mean, mean + deviation * inner.mean)
    assert found.mean.std(0).min() > 0, "what varies little around a large number is seen"


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"policy kind 'magic' is not one of .*tabular"):
        build('{"kind": "magic", "standardise": true}')
