"""Devices: what there is, what is said about one that is not there, and the fence."""

from __future__ import annotations

import pytest
import torch

from distilbench.errors import DeviceError
from distilbench.machine import device


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)  # a driver without a usable device may still count


def test_all_devices_are_listed(two_gpus):
    assert device.available() == ["cpu", "cuda:0", "cuda:1"]


def test_a_device_that_cannot_be_used_is_not_listed(no_gpu):
    assert device.available() == ["cpu"]


def test_a_name_becomes_a_device(two_gpus):
    assert device.parse("cpu") == torch.device("cpu")
    assert device.parse("cuda:1") == torch.device("cuda", 1)
    assert device.parse("cuda") == torch.device("cuda", 0), "a device without a number would move with the current one"


def test_a_gpu_too_many_is_refused_and_those_there_are_listed(two_gpus):
    with pytest.raises(DeviceError) as raised:
        device.parse("cuda:2")
    assert str(raised.value) == "there is no device 'cuda:2' here. Devices: cpu, cuda:0, cuda:1."


def test_without_a_gpu_the_message_says_whether_torch_or_the_machine_lacks_it(no_gpu, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(DeviceError, match=r"built without CUDA\. Devices: cpu\."):
        device.parse("cuda:0")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert device.cuda_version() == "13.0"
    with pytest.raises(DeviceError, match=r"built for CUDA 13\.0 but finds no usable GPU or driver\. Devices: cpu\."):
        device.parse("cuda")


def test_only_cuda_is_waited_for(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    device.synchronize(torch.device("cpu"))
    assert waited == []
    device.synchronize(torch.device("cuda:1"))
    assert waited == [torch.device("cuda:1")]


def test_the_device_is_made_current_before_anything_is_measured_on_it(monkeypatch):
    """Events are recorded on the current device's stream: on cuda:1 they would else time the idle cuda:0."""
    made_current = []
    monkeypatch.setattr(device, "available", lambda: ["cpu", "cuda:0", "cuda:1"])
    monkeypatch.setattr(device.torch.cuda, "set_device", made_current.append)
    assert device.select("cuda:1") == torch.device("cuda:1")
    assert made_current == [torch.device("cuda:1")]
    assert device.select("cpu") == torch.device("cpu")
    assert len(made_current) == 1
