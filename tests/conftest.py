"""Every test runs with one thread: small tensors are fastest so, and sums come out alike."""

import torch

torch.set_num_threads(1)
