"""What weights and estimators cost on a GPU, and whether they are the numbers of the CPU.

A batch of padded answers, float32 log-probs, as a training step for a language model has it. Each
function is given the same inputs on both; the largest difference is relative to the largest number
of the CPU's result, and milliseconds are medians. The last row is no weight: it is what log-probs
of a sixteenth of the tokens cost, from logits over 32,000 tokens, to compare with.

    python benchmarks/accelerator.py                     # on the first GPU
    python benchmarks/accelerator.py --answers 64 --device cpu
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.benchmark import Timer

import reweigh as rw

VOCABULARY = 32_000


@dataclass(frozen=True)
class Inputs:
    """A batch on one device."""

    segments: rw.Segments
    log_prob: Tensor
    log_prob_behaviour: Tensor
    rewards: Tensor
    values: Tensor
    bootstrap: Tensor
    logits: Tensor
    labels: Tensor

    @property
    def ratios(self) -> Tensor:
        """Log-ratios `[S]`."""
        return rw.log_ratios(self.log_prob, self.log_prob_behaviour, self.segments)


def inputs(answers: int, length: int, device: str) -> Inputs:
    """Draw a batch on the CPU, the same for every device, and move it."""
    random = torch.Generator().manual_seed(0)
    lengths = torch.randint(length // 4, length + 1, (answers, 1), generator=random)
    steps = answers * length
    behaviour = -torch.rand(steps, generator=random) * 3
    log_prob = behaviour + 0.05 * torch.randn(steps, generator=random)
    labels = torch.randint(VOCABULARY, (steps // 16,), generator=random)
    return Inputs(
        rw.Segments.masked((torch.arange(length) < lengths).to(device)),
        log_prob.to(device),
        behaviour.to(device),
        torch.randn(steps, generator=random).to(device),
        torch.randn(steps, generator=random).to(device),
        torch.zeros(answers, device=device),
        torch.randn(labels.numel(), VOCABULARY, generator=random).to(device),
        labels.to(device),
    )


def clipped_gradient(x: Inputs) -> Tensor:
    """PPO's clipped objective, forward and backward."""
    log_prob = x.log_prob.clone().requires_grad_()
    ratios = rw.log_ratios(log_prob, x.log_prob_behaviour, x.segments)
    objective = rw.surrogates.clipped_ratio(ratios, x.rewards, x.segments, clip=0.2)
    (gradient,) = torch.autograd.grad(rw.loss(objective, x.segments), log_prob)
    return gradient


def vtrace_targets(x: Inputs) -> Tensor:
    """V-trace's value targets, with ratios truncated at 1."""
    bounded = rw.weights.truncate(x.ratios, x.segments, maximum=1.0).log_weights
    trace = rw.advantages.vtrace(
        *(x.rewards, x.values, x.bootstrap, bounded, bounded, x.segments),
        discount=0.99,
        trace_lambda=0.95,
    )
    return trace.targets


FUNCTIONS: dict[str, Callable[[Inputs], Tensor]] = {
    "`log_ratios`": lambda x: x.ratios,
    "`weights.truncate` of the step's ratio": lambda x: (
        rw.weights.truncate(x.ratios, x.segments, maximum=2.0).log_weights
    ),
    "`weights.prefix`": lambda x: rw.weights.prefix(x.ratios, x.segments),
    "`weights.trajectory`, self-normalised": lambda x: rw.weights.self_normalise(
        rw.weights.trajectory(x.ratios, x.segments), x.segments
    ),
    "`advantages.gae`": lambda x: rw.advantages.gae(
        x.rewards, x.values, x.bootstrap, x.segments, discount=0.99, trace_lambda=0.95
    ),
    "`advantages.vtrace`": vtrace_targets,
    "`surrogates.clipped_ratio`, with its gradient": clipped_gradient,
    "`diagnostics.step_health`": lambda x: rw.diagnostics.step_health(x.ratios, x.segments).log_sum,
    "`support.log_prob` of logits": lambda x: rw.support.log_prob(x.logits, x.labels),
}


def milliseconds(function: Callable[[Inputs], Tensor], x: Inputs) -> float:
    """Median time of a call that waits for the device."""
    timer = Timer("function(x)", globals={"function": function, "x": x}, num_threads=THREADS)
    return 1e3 * timer.blocked_autorange(min_run_time=0.5).median


THREADS = torch.get_num_threads()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--answers", type=int, default=512)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--device", default="cuda")
    given = parser.parse_args()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("there is no GPU; --device cpu shows the CPU's times alone")

    on_cpu = inputs(given.answers, given.length, "cpu")
    on_device = inputs(given.answers, given.length, given.device)
    name = torch.cuda.get_device_name() if given.device.startswith("cuda") else given.device
    print(
        f"{given.answers} answers of up to {given.length} tokens; {name} beside {THREADS} cores; "
        f"PyTorch {torch.__version__}\n"
    )
    print("| | CPU ms | device ms | largest difference |")
    print("| --- | --- | --- | --- |")
    for label, function in FUNCTIONS.items():
        expected, value = function(on_cpu), function(on_device).cpu()
        scale = expected.abs().max()
        difference = float((value - expected).abs().max() / scale)
        times = milliseconds(function, on_cpu), milliseconds(function, on_device)
        print(f"| {label} | {times[0]:.1f} | {times[1]:.2f} | {difference:.0e} |", flush=True)


if __name__ == "__main__":
    main()
