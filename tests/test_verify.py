import copy
import io
import json
import subprocess
import sys

import pytest
import torch
from rich.console import Console

from reweigh import verify
from reweigh.verify import estimators


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
    assert [(row.problem, row.estimator, row.errors) for row in rows if not row.passed] == []
    assert max(max(row.errors.values()) for row in rows if row.built) < 1e-12


def test_nothing_of_the_file_is_left_out(golden, rows):
    for file in golden["problems"]:
        found = {row.estimator: row for row in rows if row.problem == file["name"]}
        named = {*golden["estimators"], *file["batch_results"], *file["trunc_batch"]["results"]}
        for key in ("mix_batch", "def_batch"):
            named |= {*file[key]["results"]}
        assert named <= set(found)
    assert all(row.built for row in rows)
    for row in rows:
        if row.built and row.estimator in estimators.ESTIMATORS:
            assert row.target and "expectation" in row.errors
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


def test_the_table_says_what_failed(golden):
    file = smallest(golden)
    file["problems"][0]["batch_results"]["seed"]["loss"] += 1e-6
    out = io.StringIO()
    verify.print_table(verify.verify(file), Console(file=out, width=160))
    assert "1 beyond a relative error of 1e-09" in out.getvalue()
    assert "0 not built" in out.getvalue()


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
