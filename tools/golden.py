"""Makes or checks a golden file: small decision processes of which everything is known exactly.

    python tools/golden.py --check reweigh/golden.json    # recomputes every number; a minute
    python tools/golden.py OUT --seed 1                   # three new random problems; seconds
    reweigh verify OUT                                    # holds the library to the new file

The check prints, for each section of the file, the largest relative difference and where it is, and
exits with 1 if one exceeds 1e-12. Nothing is shared with the package: the scripts import NumPy and
the standard library. Probabilities are multiplied, never added as logarithms; expectations are sums
over all trajectories, or over all batches of two and three.
"""

import argparse
import json
import sys
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import numpy as np
from golden_estimators import prefix
from golden_numerics import numerics_entry
from golden_problems import LOGITS, Entry, exact_tables, problem_entry
from golden_process import log_softmax

SHIPPED = Path(__file__).parents[1] / "reweigh" / "golden.json"
TOLERANCE = 1e-12
FLOOR = 1e-3
"""Differences of entries that are smaller than this are relative to it."""
SHAPES = {"chain": (2, 3, False), "branch": (3, 3, False), "terminal": (4, 4, True)}
"""Names of new problems: states, horizon, and whether the last state is terminal."""
ACTIONS, EPISODES = 2, 20


def recomputed(file: Entry) -> Entry:
    """The whole file again, from its parameters."""
    problems = []
    for given in file["problems"]:
        print(f"problem {given['name']} ...", file=sys.stderr, flush=True)
        problems.append(problem_entry(given, file["poison"]))
    return {
        **{key: file[key] for key in ("version", "set", "seed", "poison")},
        "estimators": {
            name: {**entry, "expectation": expectation(name, problems)}
            for name, entry in file["estimators"].items()
        },
        "problems": problems,
        "numerics": numerics_entry(file["numerics"]),
    }


def expectation(name: str, problems: list[Entry]) -> str | None:
    """The one of the eight `F` that the expectation equals in every problem."""
    for key in problems[0]["exact"]["F"]:
        pairs = [(p["exact"]["E"][name], p["exact"]["F"][key]) for p in problems]
        if all(difference(f, e) < 1e-9 for e, f in pairs):
            return key
    return None


def difference(value: Any, stored: Any) -> float:
    """Largest difference of two arrays or scalars over the largest of the stored numbers."""
    if isinstance(stored, str) and isinstance(value, str):
        if stored == value:
            return 0.0
        try:
            exact = Decimal(value)
            return float(abs(Decimal(stored) - exact) / abs(exact))
        except InvalidOperation:
            return float("inf")
    try:
        left, right = np.array(value), np.array(stored)
        if left.shape != right.shape or left.dtype.kind in "OU" or right.dtype.kind in "OU":
            return 0.0 if np.array_equal(left, right) else float("inf")
    except ValueError:  # lists of unequal lengths
        return float("inf")
    left, right = left.astype(float), right.astype(float)
    scale = max(float(np.abs(right).max(initial=0.0)), FLOOR)
    error = float(np.abs(left - right).max(initial=0.0)) / scale
    return error if error == error else float("inf")


def differences(value: Any, stored: Any, path: str = "") -> dict[str, float]:
    """The difference of every entry, by its path in the file."""
    if isinstance(value, dict) and isinstance(stored, dict):
        errors: dict[str, float] = {}
        for key in {**value, **stored}:
            inner = f"{path}.{key}" if path else str(key)
            if key in value and key in stored:
                errors |= differences(value[key], stored[key], inner)
            else:
                errors[inner] = float("inf")
        return errors
    named = isinstance(value, list) and any(isinstance(x, dict) for x in value)
    if named and isinstance(stored, list) and len(value) == len(stored):
        errors = {}
        for i, (x, y) in enumerate(zip(value, stored, strict=True)):
            name = x.get("name", i) if isinstance(x, dict) else i
            errors |= differences(x, y, f"{path}.{name}")
        return errors
    return {path: difference(value, stored)}


def check(path: Path) -> int:
    """Prints the largest difference of each section of a file; the exit status."""
    file = json.loads(path.read_text())
    errors = differences(recomputed(file), file)
    sections: dict[str, list[str]] = {}
    for place in errors:
        words = place.split(".")
        words = words[2:] if words[0] == "problems" else words
        # "exact.E" and "numerics.sn" are sections of their own, "batch" and "mix_batch" whole ones.
        deep = words[0] in ("exact", "numerics")
        title = ".".join(words[: 2 if deep else 1])
        sections.setdefault("parameters" if len(words) == 1 else title, []).append(place)
    for title, places in sections.items():
        worst = max(places, key=lambda place: errors[place])
        print(f"{title:24} {len(places):5} entries   {errors[worst]:8.1e}   {worst}")
    wrong = [place for place, error in errors.items() if not error <= TOLERANCE]
    for place in wrong:
        print(f"differs: {place}: {errors[place]:.1e}")
    print(
        f"{len(errors)} entries, largest relative difference {max(errors.values()):.1e}, "
        f"{len(wrong)} beyond {TOLERANCE:g}"
    )
    return 1 if wrong else 0


def rounded(x: Any) -> Any:
    """Numbers with six digits after the point, as parameters have."""
    return np.round(x, 6)


def random_problem(name: str, rng: np.random.Generator, poison: Entry) -> Entry:
    """A random problem and its batches, with policies that are far enough apart.

    The largest weight of a trajectory is above 12: `verify` holds a truncation at 10 to be biased,
    which is so only where it changes a weight.
    """
    while True:
        given = random_parameters(name, rng)
        exact = exact_tables(given)
        x, _ = exact.process.everything(given["H"])
        ratios = x.chances(exact.policies["theta"]) / x.chances(exact.policies["phi"])
        if prefix(ratios)[:, -1].max() > 12:
            return problem_entry({**given, **random_batches(given, rng)}, poison)


def random_parameters(name: str, rng: np.random.Generator) -> Entry:
    """A random process and its policies; each state and action has two successors."""
    states, horizon, ends = SHAPES[name]
    alive = states - 1 if ends else states
    first = np.zeros(states)
    first[:2] = rounded(rng.dirichlet([2.0, 2.0]))
    moves = np.zeros((states, ACTIONS, states))
    for s in range(states):
        for a in range(ACTIONS):
            successors = rng.choice(states, 2, replace=False)
            chance = rounded(rng.uniform(0.1, 0.9))
            moves[s, a, successors] = chance, 1 - chance
    if ends:
        moves[-1], moves[-1, :, -1] = 0.0, 1.0
        if not moves[:alive, :, -1].any():  # an end that no step leads to
            moves[0, 0] = 0.0
            moves[0, 0, [1, states - 1]] = 0.5
    logits = {key: rounded(rng.normal(size=(states, ACTIONS))) for key in LOGITS}
    critic = rounded(rng.normal(size=(horizon, states, ACTIONS)))
    critic[:, alive:] = 0.0
    return {
        "name": name,
        "S": states,
        "A": ACTIONS,
        "H": horizon,
        "gamma": float(rounded(rng.uniform(0.8, 0.95))),
        "p0": first,
        "P": moves,
        "R": rounded(rng.normal(size=(states, ACTIONS, states))),
        "terminal": np.arange(states) >= alive,
        **logits,
        "Qhat": critic,
    }


def random_batches(given: Entry, rng: np.random.Generator) -> Entry:
    """The logged batches: of `phi`, of two behaviours, and of these with the target."""

    def mixture(counts: dict[str, int]) -> Entry:
        policies = [name for name, count in counts.items() for _ in range(count)]
        shares = {"sources": list(counts), "counts": list(counts.values())}
        return {**shares, **sampled(given, policies, rng)}

    power_mean = {"pm_lambda": [0.05, 0.2], "pm_alpha": [0.5, 0.5]}
    return {
        "batch": sampled(given, ["phi"] * EPISODES, rng),
        "mix_batch": power_mean | mixture({"phi1": 12, "phi2": 8}),
        "def_batch": mixture({"phi1": 12, "phi2": 6, "theta": 2}),
    }


def sampled(given: Entry, policies: list[str], rng: np.random.Generator) -> Entry:
    """One trajectory of each policy: states, actions, next states, rewards and mask."""
    shape = len(policies), given["H"]
    states, actions, following = (np.zeros(shape, dtype=int) for _ in range(3))
    rewards, mask = np.zeros(shape), np.zeros(shape)
    for i, name in enumerate(policies):
        chances = np.exp(log_softmax(given[name]))
        s = rng.choice(given["S"], p=given["p0"])
        for t in range(given["H"]):
            a = rng.choice(ACTIONS, p=chances[s])
            n = rng.choice(given["S"], p=given["P"][s, a])
            states[i, t], actions[i, t], following[i, t], mask[i, t] = s, a, n, 1
            rewards[i, t] = given["R"][s, a, n]
            if given["terminal"][n]:
                break
            s = n
    columns = {"states": states, "actions": actions, "next_states": following}
    return {**columns, "rewards": rewards, "mask": mask}


def random_numerics(file: Entry, rng: np.random.Generator) -> Entry:
    """The cases of the shipped file with other seeds and other weights."""

    def reseeded(case: Entry) -> Entry:
        seeds = {key: int(rng.integers(2**31)) for key in case if key.startswith("lcg_seed")}
        return case | seeds

    given = {key: [reseeded(x) for x in file[key]] for key in ("prefix", "returns", "khat")}
    logs = rng.uniform(-2, 2, 32)
    scales = [logs, 16 * logs, 16 * logs + 400, 16 * logs - 800, 500 * logs - 5000]
    return {
        **given,
        "sn": [{"logw": x.tolist(), "truncate_at": 5.0} for x in scales],
        "spike": file["spike"],
    }


def plain(x: Any) -> Any:
    """The same in lists and Python numbers."""
    if isinstance(x, dict):
        return {key: plain(value) for key, value in x.items()}
    if isinstance(x, list | tuple):
        return [plain(value) for value in x]
    return x.tolist() if isinstance(x, np.ndarray | np.generic) else x


def write(path: Path, seed: int) -> None:
    """Writes a file of new problems; the names of the estimators are those of the shipped one."""
    shipped = json.loads(SHIPPED.read_text())
    rng = np.random.default_rng(seed)
    problems = [random_problem(name, rng, shipped["poison"]) for name in SHAPES]
    file = {
        "version": 1,
        "set": "generated",
        "seed": seed,
        "poison": shipped["poison"],
        "estimators": {
            name: {**entry, "expectation": expectation(name, problems)}
            for name, entry in shipped["estimators"].items()
        },
        "problems": problems,
        "numerics": numerics_entry(random_numerics(shipped["numerics"], rng)),
    }
    path.write_text(json.dumps(plain(file), separators=(",", ":")))
    count = [problem["exact"]["n_trajectories"] for problem in problems]
    print(f"{path}: problems of {', '.join(map(str, count))} trajectories")


def main() -> int:
    """Checks a file or writes a new one; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("out", type=Path, nargs="?", metavar="OUT", help="file to write")
    parser.add_argument("--seed", type=int, default=0, help="of the new problems")
    parser.add_argument("--check", type=Path, metavar="FILE", help="file to check")
    given = parser.parse_args()
    if (given.out is None) == (given.check is None):
        parser.error("give OUT, the file to write, or --check FILE")
    if given.check:
        return check(given.check)
    write(given.out, given.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
