"""Files that are written whole or not at all, and tensors with a checksum."""

import json
import os
import zlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

# One key, since safetensors writes several in an order that varies, and equal runs shall have equal
# files. The checksum is there because a safetensors file alone does not notice a flipped bit.
_KEY = "reweigh"


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that a crash leaves the old content or the new, never a part.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # the rename itself
    finally:
        os.close(folder)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes tensors and text as one safetensors file; the same values give the same bytes.

    Raises:
        OSError: The disk is full or cannot be written.
    """
    # Clones, since safetensors refuses tensors that share memory, as tied weights do.
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    header = {"metadata": metadata, "crc32": _checksum(tensors, metadata)}
    write_whole(path, save(tensors, {_KEY: json.dumps(header, sort_keys=True)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and text of a file by `write_tensors`, on the CPU.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        with safe_open(path, framework="pt") as content:
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
            header = json.loads((content.metadata() or {}).get(_KEY, "{}"))
        metadata = header.get("metadata", {})
        if header.get("crc32") != _checksum(tensors, metadata):
            raise SafetensorError("the values are not those that were saved")
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}. Restore it from a backup.") from None
    return tensors, metadata


def _checksum(tensors: dict[str, Tensor], metadata: dict[str, str]) -> int:
    """CRC-32 of metadata and tensors, in the order of the names."""
    checksum = zlib.crc32(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        head = f"{name} {tensor.dtype} {list(tensor.shape)}"
        checksum = zlib.crc32(head.encode(), checksum)
        checksum = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, checksum)
    return checksum
