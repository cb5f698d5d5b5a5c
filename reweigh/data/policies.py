"""The policies that sampled a log, by version, so that old log-probabilities can be recomputed."""

from pathlib import Path

import torch

from reweigh.data.files import read_tensors, write_tensors


class PolicyStore:
    """A folder of policies, one safetensors file a version.

    Args:
        path: The folder; the first `save` makes it.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def save(
        self, version: int, state_dict: dict[str, torch.Tensor], *, metadata: dict[str, str]
    ) -> None:
        """Saves a policy in place of any of its version. A crash leaves the old file or the new.

        Raises:
            ValueError: The version is negative.
            OSError: The disk is full or cannot be written.
        """
        if version < 0:
            raise ValueError(f"The policy's version is {version}; versions count from 0.")
        self.path.mkdir(parents=True, exist_ok=True)
        write_tensors(self._file(version), state_dict, metadata)

    def load(self, version: int) -> dict[str, torch.Tensor]:
        """The state dict of a version, on the CPU.

        Raises:
            ValueError: The version is not there, or its file is damaged.
        """
        return self._read(version)[0]

    def metadata(self, version: int) -> dict[str, str]:
        """Metadata that was saved with a version.

        Raises:
            ValueError: The version is not there, or its file is damaged.
        """
        return self._read(version)[1]

    def versions(self) -> list[int]:
        """All versions, oldest first."""
        files = self.path.glob("*.safetensors")
        return sorted(int(file.stem) for file in files if file.stem.isdecimal())

    def latest(self) -> int:
        """The newest version.

        Raises:
            ValueError: The folder has no policy.
        """
        versions = self.versions()
        if not versions:
            raise ValueError(f"{self.path} holds no policy. Save one first.")
        return versions[-1]

    def _file(self, version: int) -> Path:
        return self.path / f"{version:08d}.safetensors"

    def _read(self, version: int) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        file = self._file(version)
        if not file.exists():
            raise ValueError(f"{self.path} has no policy {version}; it has {self.versions()}.")
        return read_tensors(file)
