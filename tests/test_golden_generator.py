"""tools/golden.py: recomputes the golden file, finds wrong numbers, and writes new files."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest

from reweigh import verify
from reweigh.verify.golden import SHIPPED

SCRIPT = Path(__file__).parents[1] / "tools" / "golden.py"


def golden(*arguments):
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def smallest():
    """The shipped file with one problem and the short cases of its numerics."""
    file = json.loads(SHIPPED.read_text())
    few = {key: file["numerics"][key][:1] for key in ("returns", "sn", "khat")}
    file["problems"] = file["problems"][:1]
    file["numerics"] |= {**few, "prefix": []}
    return file


def checked(file, folder):
    path = folder / "golden.json"
    path.write_text(json.dumps(file))
    return golden("--check", path)


def test_every_number_of_the_shipped_file_is_recomputed(smallest, tmp_path):
    check = checked(smallest, tmp_path)
    assert check.returncode == 0, check.stdout
    count, worst = check.stdout.splitlines()[-1].split(" entries, largest relative difference ")
    assert int(count) > 450
    assert float(worst.split(",")[0]) < 1e-12


def raised(table):
    """The first number of nested lists, a billionth larger."""
    if isinstance(table[0], list):
        raised(table[0])
    else:
        table[0] += 1e-9


def test_wrong_numbers_labels_and_missing_entries_are_found(smallest, tmp_path):
    wrong = copy.deepcopy(smallest)
    problem = wrong["problems"][0]
    raised(problem["exact"]["E_sn"]["sn_pdis"]["3"])
    raised(problem["batch_results"]["pdis"]["grad"])
    raised(problem["mix_batch"]["logp_src"])
    raised(wrong["numerics"]["sn"][0]["weights"])
    problem["exact"]["var_trace"]["step"] *= 1 + 1e-9
    digits = wrong["numerics"]["returns"][0]["sum_str"]
    wrong["numerics"]["returns"][0]["sum_str"] = digits[:9] + "7" + digits[10:]
    wrong["estimators"]["step"]["expectation"] = "theta,theta,gt"
    problem["batch"]["terminated"][0] = True
    del problem["trunc_batch"]["bootstrap_value"]
    check = checked(wrong, tmp_path)
    assert check.returncode == 1
    places = [
        line.split(": ")[1] for line in check.stdout.splitlines() if line.startswith("differs: ")
    ]
    assert sorted(places) == [
        "estimators.step.expectation",
        "numerics.returns.0.sum_str",
        "numerics.sn.0.weights",
        "problems.chain.batch.terminated",
        "problems.chain.batch_results.pdis.grad",
        "problems.chain.exact.E_sn.sn_pdis.3",
        "problems.chain.exact.var_trace.step",
        "problems.chain.mix_batch.logp_src",
        "problems.chain.trunc_batch.bootstrap_value",
    ]


def test_a_new_file_has_other_problems_and_the_library_agrees_with_it(tmp_path):
    path = tmp_path / "new.json"
    made = golden(path, "--seed", 5)
    assert made.returncode == 0, made.stderr
    file = verify.load(path)
    shipped = json.loads(SHIPPED.read_text())
    for problem, other in zip(file["problems"], shipped["problems"], strict=True):
        assert problem["theta"] != other["theta"]
        assert problem.keys() == other.keys() and problem["exact"].keys() == other["exact"].keys()
        assert problem["batch_results"].keys() == other["batch_results"].keys()
    rows = verify.verify(file)
    assert [row for row in rows if not row.passed] == []


def test_one_of_two_files_must_be_given(tmp_path):
    assert "give OUT" in golden().stderr
    assert golden(tmp_path / "out.json", "--check", SHIPPED).returncode == 2
