import os
from pathlib import Path

import pytest
import torch

from reweigh.data import PolicyStore


def policy(seed):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 4, generator=generator)
    return {
        "weight": weight,
        "tied": weight,
        "transposed": weight.T,
        "log_std": torch.randn((), generator=generator, dtype=torch.float64),
        "half": torch.randn(2, generator=generator).bfloat16(),
        "steps": torch.tensor([seed]),
        "none": torch.empty(0, 3),
    }


def assert_same(left, right):
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert tensor.dtype == right[name].dtype
        assert torch.equal(tensor, right[name])


@pytest.fixture
def store(tmp_path):
    store = PolicyStore(tmp_path / "policies")
    for version in (0, 2, 10):
        store.save(version, policy(version), metadata={"hidden": f"[{version}]"})
    return store


def test_policies_come_back_exactly_by_version(store):
    again = PolicyStore(str(store.path))
    for version in (0, 2, 10):
        assert_same(again.load(version), policy(version))
        assert again.metadata(version) == {"hidden": f"[{version}]"}
    assert again.versions() == [0, 2, 10]
    assert again.latest() == 10


def test_saving_a_version_again_replaces_it(store):
    store.save(2, policy(5), metadata={})
    assert_same(store.load(2), policy(5))
    assert store.metadata(2) == {}
    assert store.versions() == [0, 2, 10]


def test_a_parameter_that_needs_a_gradient_is_saved_by_value(store):
    weight = torch.nn.Parameter(torch.ones(2))
    store.save(3, {"weight": weight}, metadata={})
    loaded = store.load(3)["weight"]
    assert not loaded.requires_grad
    assert torch.equal(loaded, torch.ones(2))


def test_a_save_that_fails_leaves_the_old_policy_and_no_debris(store, monkeypatch):
    def fail(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        store.save(2, policy(5), metadata={})
    assert_same(store.load(2), policy(2))
    assert len(list(store.path.iterdir())) == 3


def test_a_policy_is_whole_before_it_has_its_name(store, monkeypatch):
    order = []
    fsync, replace = os.fsync, Path.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), fsync(fd))[1])
    monkeypatch.setattr(Path, "replace", lambda a, b: (order.append("rename"), replace(a, b))[1])
    store.save(4, policy(4), metadata={})
    assert order == ["fsync", "rename", "fsync"]


def test_what_is_not_there_is_refused(store, tmp_path):
    with pytest.raises(ValueError, match=r"no policy 7; it has \[0, 2, 10\]"):
        store.load(7)
    with pytest.raises(ValueError, match="no policy 7"):
        store.metadata(7)
    empty = PolicyStore(tmp_path / "nothing")
    assert empty.versions() == []
    with pytest.raises(ValueError, match="holds no policy"):
        empty.latest()
    with pytest.raises(ValueError, match="-1"):
        store.save(-1, policy(0), metadata={})


def test_other_files_are_no_versions(store):
    (store.path / "best.safetensors").write_bytes(b"")
    (store.path / ".11.123.tmp").write_bytes(b"")
    assert store.versions() == [0, 2, 10]


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_policy_is_named(store, keep):
    file = store.path / "00000002.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ValueError, match=f"{file} is damaged.*Restore it"):
        store.load(2)


def test_a_flipped_byte_is_never_loaded_as_another_policy(store):
    file = store.path / "00000002.safetensors"
    intact = file.read_bytes()
    for position in range(len(intact)):
        flipped = bytearray(intact)
        flipped[position] ^= 0x01
        file.write_bytes(flipped)
        try:
            loaded = store.load(2)
        except ValueError as error:
            assert str(file) in str(error)
        else:
            assert_same(loaded, policy(2))
            assert store.metadata(2) == {"hidden": "[2]"}
