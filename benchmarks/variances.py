"""Values and exact variances of estimators on the problems with finitely many states.

python benchmarks/variances.py         # a table in Markdown; a second
"""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from exact import Model, variances
from problems import PROBLEMS
from simulated import Problem


def main() -> None:
    """Prints the values and variances of the problems with finitely many states."""
    heads = None
    for make in PROBLEMS.values():
        problem = make()
        if not isinstance(problem, Problem):
            continue
        of_estimators = variances(problem)
        if heads is None:
            heads = list(of_estimators)
            print("| problem | V target | V behaviour | E[W²] | " + " | ".join(heads) + " |")
            print("| --- " * (len(heads) + 4) + "|")
        squared = Model.of(problem).trajectory_squares()[0]
        numbers = problem.value(), problem.behaviour_value(), squared, *of_estimators.values()
        shown = [f"{x:.4g}" for x in numbers] + [""] * (len(heads) - len(of_estimators))
        print(f"| {problem.name} | " + " | ".join(shown) + " |")


if __name__ == "__main__":
    main()
