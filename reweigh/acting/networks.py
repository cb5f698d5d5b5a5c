"""The networks of policies and value functions: from observations to numbers.

What an observation is decides how it is read: a number of choices as a one-hot vector, an image by
convolutions, anything else as the vector that it is; several of the last ones by a recurrent unit.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_IMAGE = 16
"""Rows and columns from which three dimensions are an image."""
_SMALL = 4
"""Rows or columns at which convolutions end."""
_CHANNELS = (16, 32, 32, 64, 64)
_PERCEPTS = 64
"""Numbers that an image becomes."""


class OneHot(nn.Module):
    """Encode discrete observations `[B]` as one-hot vectors `[B, classes]`."""

    def __init__(self, classes: int):
        super().__init__()
        self.classes = classes

    def forward(self, observations: Tensor) -> Tensor:
        """Return float32 `[B, classes]`."""
        return nn.functional.one_hot(observations.long(), self.classes).float()


class Flatten(nn.Module):
    """Flatten observations `[B, *shape]` to float32 `[B, size]`."""

    def forward(self, observations: Tensor) -> Tensor:
        """Return float32 `[B, size]`."""
        return observations.reshape(len(observations), -1).float()


class Convolutions(nn.Module):
    """Read images `[B, rows, columns, channels]` by strided 3 x 3 convolutions and ReLU.

    Bytes are measured in units of 255. Each layer halves rows and columns, until few are left.
    """

    def __init__(self, shape: Sequence[int]):
        super().__init__()
        rows, columns, channels = shape
        layers: list[nn.Module] = []
        for width in _CHANNELS:
            if min(rows, columns) <= _SMALL:
                break
            layer = nn.Conv2d(channels, width, 3, stride=2, padding=1)
            nn.init.orthogonal_(layer.weight, math.sqrt(2))
            layers += [layer, nn.ReLU()]
            rows, columns, channels = -(-rows // 2), -(-columns // 2), width
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.last = linear(rows * columns * channels, _PERCEPTS, math.sqrt(2))

    def forward(self, observations: Tensor) -> Tensor:
        """Return float32 `[B, 64]`."""
        scale = 1 / 255 if observations.dtype == torch.uint8 else 1.0
        return self.last(self.layers(observations.float().mul(scale).movedim(-1, 1))).relu()


class Recurrent(nn.Module):
    """Read the last `k` observations `[B, k, *shape]`, each by an encoder, with a GRU (Cho 2014).

    The memory is of those `k`: the state is 0 before the first of them. An action's probability is
    then a function of what is logged with it, and its weight exact, however old it is; a state that
    was carried over the whole episode would be an older network's (Kapturowski et al. 2019).
    """

    def __init__(self, encoder: nn.Module, inputs: int, width: int):
        super().__init__()
        self.encoder = encoder
        self.unit = nn.GRU(inputs, width, batch_first=True)

    def forward(self, observations: Tensor) -> Tensor:
        """Return float32 `[B, width]`: the state after the newest observation."""
        count, remembered = observations.shape[:2]
        encoded = self.encoder(observations.flatten(0, 1)).view(count, remembered, -1)
        return self.unit(encoded)[1][0]


def linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    """Make a linear layer with orthogonal weights and no bias to begin with."""
    layer = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)
    return layer


def is_image(shape: Sequence[int]) -> bool:
    """Tell whether an observation is an image: rows, columns, and a few channels."""
    return len(shape) == 3 and min(shape[:2]) >= _IMAGE > shape[2]


def network(
    observation_shape: Sequence[int],
    observation_classes: int,
    hidden: Sequence[int],
    outputs: int,
    *,
    output_gain: float,
    memory: int = 1,
) -> nn.Sequential:
    """Build tanh layers with orthogonal weights on what reads an observation.

    A small `output_gain` starts a policy close to uniform, so that its first importance weights
    are close to 1 (Andrychowicz et al. 2021, section 3.2).

    Args:
        observation_shape: Of what is logged with a step: with `memory`, its first dimension.
        observation_classes: How many values a discrete observation has; 0 for a Box.
        hidden: Widths; with `memory`, the first is the recurrent unit's.
        outputs: How many numbers come out.
        output_gain: Of the last layer's weights.
        memory: How many of the last observations are read; 1 is none but the newest.
    """
    shape = observation_shape[1:] if memory > 1 else observation_shape
    first, size = _encoder(shape, observation_classes)
    if memory > 1:
        width, *hidden = hidden or [_PERCEPTS]
        first, size = Recurrent(first, size, width), width
    layers: list[nn.Module] = [first]
    for width in hidden:
        layers += [linear(size, width, math.sqrt(2)), nn.Tanh()]
        size = width
    return nn.Sequential(*layers, linear(size, outputs, output_gain))


def _encoder(shape: Sequence[int], classes: int) -> tuple[nn.Module, int]:
    """Return what reads an observation, and how many numbers it gives."""
    if classes:
        return OneHot(classes), classes
    if is_image(shape):
        return Convolutions(shape), _PERCEPTS
    return Flatten(), math.prod(shape)


class ValueFunction(nn.Module):
    """V(s) = mean + deviation * f(s), f a network of the same shape as the policies'.

    Mean and deviation are those of the returns it is fitted to, so that f learns numbers around 1
    whatever the environment's rewards are; with `standardise`, what f sees is
    measured too.
    """

    mean: Tensor
    deviation: Tensor
    observation_mean: Tensor
    observation_deviation: Tensor

    def __init__(
        self,
        observation_shape: Sequence[int],
        observation_classes: int,
        hidden: Sequence[int],
        *,
        standardise: bool = False,
        memory: int = 1,
    ):
        super().__init__()
        self.standardised = network(
            observation_shape, observation_classes, hidden, 1, output_gain=1.0, memory=memory
        )
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("deviation", torch.ones(()))
        shape = tuple(observation_shape) if standardise else ()
        self.register_buffer("observation_mean", torch.zeros(shape, dtype=torch.float64))
        self.register_buffer("observation_deviation", torch.ones(shape, dtype=torch.float64))
        self.measures = standardise

    def forward(self, observations: Tensor) -> Tensor:
        """Return values `[B]`."""
        if self.measures:
            seen = (observations.double() - self.observation_mean) / self.observation_deviation
            observations = seen.float()
        return self.mean + self.deviation * self.standardised(observations).squeeze(-1)

    def loss(self, observations: Tensor, targets: Tensor) -> Tensor:
        """Return half of the mean squared error of `targets` `[B]`, in units of the deviation."""
        error = (self(observations) - targets) / self.deviation
        return 0.5 * error.square().mean()

    @torch.no_grad()
    def measure(self, mean: Tensor, deviation: Tensor) -> None:
        """Take the mean and deviation of observations; what does not vary keeps its unit."""
        self.observation_mean.copy_(mean)
        self.observation_deviation.copy_(torch.where(deviation > 0, deviation, 1.0))

    @torch.no_grad()
    def standardise(self, returns: Tensor) -> None:
        """Take mean and deviation from `returns`; change the last layer so that V stays as it is.

        van Hasselt et al. 2016 (Pop-Art), equations 2 to 5.
        """
        mean = returns.mean().float()
        deviation = returns.std(correction=0).float().clamp(min=1e-3)
        last = self.standardised[-1]
        assert isinstance(last, nn.Linear)
        last.weight.mul_(self.deviation / deviation)
        last.bias.mul_(self.deviation).add_(self.mean - mean).div_(deviation)
        self.mean.copy_(mean)
        self.deviation.copy_(deviation)
