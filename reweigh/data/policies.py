"""The policies that sampled a log, by version, so that old log-probabilities can be recomputed."""

import json
import os
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

_CHECKSUM = "reweigh.crc32"  # a safetensors file alone does not notice a flipped bit


class PolicyStore:
    """A folder of policies, one safetensors file a version.

    Args:
        path: the folder; it is made by the first `save`.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)

    def save(
        self, version: int, state_dict: dict[str, torch.Tensor], *, metadata: dict[str, str]
    ) -> None:
        """Keep a policy, replacing the one of that version. A crash leaves the old file or the new.

        Raises:
            ValueError: the version is negative.
            OSError: the disk is full or cannot be written.
        """
        if version < 0:
            raise ValueError(f"The policy's version is {version}; versions count from 0.")
        self.path.mkdir(parents=True, exist_ok=True)
        # Clones, since safetensors refuses tensors that share memory, as tied weights do.
        tensors = {name: t.detach().cpu().contiguous().clone() for name, t in state_dict.items()}
        content = save(tensors, {**metadata, _CHECKSUM: _checksum(tensors, metadata)})
        temporary = self.path / f".{version}.{os.getpid()}.tmp"
        try:
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self._file(version))
        finally:
            temporary.unlink(missing_ok=True)
        folder = os.open(self.path, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename itself
        finally:
            os.close(folder)

    def load(self, version: int) -> dict[str, torch.Tensor]:
        """The state dict of a version, on the CPU.

        Raises:
            ValueError: there is no such version, or its file is damaged.
        """
        return self._read(version)[0]

    def metadata(self, version: int) -> dict[str, str]:
        """What was saved with a version beside its tensors.

        Raises:
            ValueError: there is no such version, or its file is damaged.
        """
        return self._read(version)[1]

    def versions(self) -> list[int]:
        """All versions, oldest first."""
        files = self.path.glob("*.safetensors")
        return sorted(int(file.stem) for file in files if file.stem.isdecimal())

    def latest(self) -> int:
        """The newest version.

        Raises:
            ValueError: there is none.
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
        try:
            with safe_open(file, framework="pt") as content:
                tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
                metadata = content.metadata() or {}
            if metadata.pop(_CHECKSUM, None) != _checksum(tensors, metadata):
                raise SafetensorError("the values are not those that were saved")
        except SafetensorError as error:
            raise ValueError(
                f"{file} is damaged: {error}. Restore it from a backup, or do without policy "
                f"{version}."
            ) from None
        return tensors, metadata


def _checksum(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> str:
    """CRC-32 of all there is to a policy, in the order of the names."""
    checksum = zlib.crc32(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        head = f"{name} {tensor.dtype} {list(tensor.shape)}"
        checksum = zlib.crc32(head.encode(), checksum)
        checksum = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, checksum)
    return str(checksum)
