import copy
import io
import json
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from reweigh import cli, recipes, verify
from reweigh.core import returns
from reweigh.recipes import BIASED, UNBIASED, Expectation, Gradient
from reweigh.verify.golden_estimators import ESTIMATORS


@pytest.fixture(scope="module")
def golden():
    return verify.load()


@pytest.fixture(scope="module")
def rows(golden):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # tens of thousands of small operations: 5 times quicker so
    yield verify.verify(golden)
    torch.set_num_threads(threads)


def smallest(golden):
    """The file with its smallest problem alone, to be changed."""
    return copy.deepcopy({**golden, "problems": golden["problems"][:1], "numerics": NO_NUMERICS})


PREFIX = {"lcg_seed": 1, "shift": 3, "drift": 0, "checkpoints": [{"terms": 2, "L": 0.0}]}
RETURNS = {"gamma": 0.9}

NO_NUMERICS = {
    "prefix": [],
    "returns": [],
    "sn": [],
    "khat": [],
    "spike": {"log_ratio": [0.0], "L": [0.0], "w_trunc2": [1.0]},
}


def test_every_estimator_is_exact(rows):
    failed = [(row.problem, row.estimator, row.errors, row.undeclared) for row in rows]
    assert [x for x, row in zip(failed, rows, strict=True) if not row.passed] == []
    assert max(error for row in rows for error in row.errors.values()) < 1e-12


def test_every_recipe_is_held_to_something_on_every_problem(golden, rows):
    for file in golden["problems"]:
        ours = [row for row in rows if row.problem == file["name"] and row.is_recipe]
        assert [row.estimator for row in ours] == [*recipes.ALL, "truncated_per_decision"]
        for row in ours[:-1]:
            biased = recipes.ALL[row.estimator].expectation == BIASED
            assert not biased or {"value", "identity", "formula"} & set(row.errors) or row.none_of
    smallest = [row for row in rows if row.is_recipe and row.problem == "chain"]
    assert all({"expectation", "on-policy"} <= {*row.errors, *row.none_of} for row in smallest)


def test_wrong_declarations_are_refused(rows):
    wrong = [row for row in rows if row.problem == "wrong declarations"]
    assert len(wrong) == 15 and all(row.passed for row in wrong)


def test_nothing_of_the_file_is_left_out(golden, rows):
    for file in golden["problems"]:
        found = {row.estimator: row for row in rows if row.problem == file["name"]}
        named = {*golden["estimators"], *file["batch_results"], *file["trunc_batch"]["results"]}
        for key in ("mix_batch", "def_batch"):
            named |= {*file[key]["results"]}
        assert named <= set(found)
    assert all(row.built for row in rows)
    for row in rows:
        if row.estimator in ESTIMATORS and not row.is_recipe:
            assert row.declared and "expectation" in row.errors
    assert sum(row.problem == "numerics" for row in rows) == 23


def test_a_name_that_the_library_does_not_know_is_listed_as_not_built(golden):
    file = smallest(golden)
    results = file["problems"][0]["batch_results"]
    results["from_the_future"] = results["seed"]
    (row,) = [row for row in verify.verify(file) if not row.built]
    assert row.estimator == "from_the_future" and row.passed


@pytest.mark.parametrize(
    ("path", "quantity"),
    [
        (("batch_results", "seed", "loss"), "value"),
        (("batch_results", "seed", "grad", 0, 0), "gradient"),
        (("batch_results", "seed", "coef", 0, 0), "coefficients"),
        (("exact", "E", "seed", 0, 0), "expectation"),
        (("exact", "E_sn", "sn_traj", "1", 0, 0), "expectation"),
        (("exact", "E_sn", "sn_traj", "2", 0, 0), "expectation"),
        (("exact", "E_trunc", "pdis_boot_phi", 0, 0), "expectation"),
        (("exact", "E_mix", "mix_bh_traj", 0, 0), "expectation"),
        (("diagnostics", "ess_step", 0), "value"),
    ],
)
def test_a_changed_number_is_seen(golden, path, quantity):
    file = smallest(golden)
    place = file["problems"][0]
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] += 1e-6
    (failed,) = [row for row in verify.verify(file) if not row.passed]
    assert [name for name, error in failed.errors.items() if error > verify.TOLERANCE] == [quantity]


def printed(rows):
    out = io.StringIO()
    verify.print_table(rows, Console(file=out, width=200))
    return out.getvalue()


def test_the_table_says_what_failed(golden):
    file = smallest(golden)
    file["problems"][0]["batch_results"]["seed"]["loss"] += 1e-6
    words = printed(verify.verify(file))
    assert "1 failed (tolerance 1e-09" in words and "0 not built" in words
    assert "chain, seed: value off by" in words
    assert "Of 15 declarations that are wrong, 15 were refused." in words


def test_the_table_says_of_how_many_gradients_a_biased_expectation_is_none(rows):
    (line,) = [x for x in printed(rows[:60]).splitlines() if x.split()[:1] == ["ppo"]]
    assert "none of 8" in line and line.rstrip().endswith("biased")


def by_step(continuation, *, discounted=True):
    """A recipe of single ratios on a continuation, which declares what `step` does."""

    @recipes.gradient(Expectation(Gradient("φ", "φ")))
    def mine(sample):
        return recipes.weighted_score(
            sample, sample.log_ratios.exp(), continuation(sample), discounted=discounted
        )

    return mine


BROKEN = {
    "wrong sign": by_step(lambda s: -s.reward_to_go),
    "no discount of the step": by_step(lambda s: s.reward_to_go, discounted=False),
    "the reward alone": by_step(lambda s: s.rewards),
    "the target's continuation": by_step(
        lambda s: returns.target_reward_to_go(
            s.rewards, s.log_ratios, s.segments, discount=s.discount
        )
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_recipe_fails(golden, name):
    rows = verify.verify(smallest(golden), {"mine": BROKEN[name]})
    (row,) = [row for row in rows if row.is_recipe]
    assert not row.passed and row.errors["expectation"] > 1e-3
    assert "chain, mine: expectation off by" in printed(rows)


def test_a_recipe_of_ones_own_passes_if_it_is_what_it_declares(golden):
    (row,) = [
        row
        for row in verify.verify(smallest(golden), {"mine": by_step(lambda s: s.reward_to_go)})
        if row.is_recipe
    ]
    assert row.passed and row.declared == "∇ of the TRPO surrogate"


@pytest.mark.parametrize(
    ("name", "expectation"),
    [("step", UNBIASED), ("step", BIASED), ("per_decision", BIASED), ("reinforce", UNBIASED)],
)
def test_a_wrong_label_fails(golden, name, expectation):
    recipe = replace(recipes.ALL[name], expectation=expectation)
    rows = verify.verify(smallest(golden), {name: recipe})
    (row,) = [row for row in rows if row.is_recipe]
    assert not row.passed
    if expectation == BIASED:
        assert row.undeclared and "which is not declared" in printed(rows)


def test_an_input_that_verify_cannot_make_is_asked_for(golden):
    @recipes.gradient(BIASED)
    def mine(sample, temperatures):
        return sample.log_prob_target * temperatures

    with pytest.raises(ValueError, match="verify cannot make the input 'temperatures'"):
        verify.verify(smallest(golden), {"mine": mine})


@pytest.mark.parametrize(("changed", "status"), [(0.0, 0), (1e-6, 1)])
def test_the_exit_status_says_whether_all_is_exact(golden, tmp_path, monkeypatch, changed, status):
    file = smallest(golden)
    file["problems"][0]["batch_results"]["seed"]["loss"] += changed
    path = tmp_path / "small.json"
    path.write_text(json.dumps(file))
    monkeypatch.setattr(sys, "argv", ["reweigh", "verify", str(path)])
    with pytest.raises(SystemExit) as exit:
        cli.main()
    assert (exit.value.code or 0) == status


def set_at(*path, value):
    def change(golden):
        place = golden
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value

    return change


def delete(*path):
    def change(golden):
        place = golden
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (delete("problems", 0, "batch"), "'batch' is missing"),
        (delete("problems", 0, "exact", "E", "seed"), "'seed' is missing"),
        (set_at("problems", 0, "theta", value=[[1.0]]), r"'theta' has shape \[1, 1\]"),
        (set_at("problems", 0, "theta", value="x"), "'theta' is str, expected list"),
        (set_at("problems", 0, "phi", 0, value=["a", "b"]), "'phi' is not an array of numbers"),
        (set_at("problems", 0, "phi", 0, value=[1.0]), "'phi' is not an array of numbers"),
        (set_at("problems", 0, "batch", "states", 0, 0, value=9), "integers from 0 to 1"),
        (set_at("problems", 0, "gamma", value=2.0), "discount must lie in"),
        (set_at("problems", 0, "mix_batch", "sources", value=["x", "phi"]), "no policy: {'x'}"),
        (set_at("problems", 0, value=3), "'S' is looked for in int"),
        (set_at("numerics", "prefix", value=[PREFIX | {"T": 1}]), "'terms' must lie from 1 to"),
        (set_at("numerics", "returns", value=[RETURNS | {"T": 0}]), "'T' must be positive"),
    ],
)
def test_a_malformed_file_is_one_clear_line(golden, change, message):
    file = smallest(golden)
    change(file)
    with pytest.raises(ValueError, match=message) as caught:
        verify.verify(file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a readable golden file"),
        ("{", "not a readable golden file"),
        ("[]", "not a golden file of version 1"),
        ('{"version": 2}', "not a golden file of version 1"),
        ('{"version": 1}', "'problems' is missing"),
    ],
)
def test_load_refuses_what_is_no_golden_file(tmp_path, text, message):
    path = tmp_path / "golden.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        verify.load(path)
    with pytest.raises(ValueError, match=r"absent\.json is not a readable golden file"):
        verify.load(tmp_path / "absent.json")


def test_load_reads_the_file_it_is_given(tmp_path, golden):
    path = tmp_path / "golden.json"
    path.write_text(json.dumps(smallest(golden)))
    assert len(verify.load(path)["problems"]) == 1


def test_the_mathematics_needs_torch_alone():
    code = (
        "import sys; import reweigh.recipes; "
        "print({'rich', 'deltalake', 'pyarrow', 'gymnasium'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
