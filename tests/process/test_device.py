import pytest
import torch

from convrun.plan import Machine
from convrun.process.device import device_text


@pytest.mark.parametrize(("threads", "text"), [(1, "CPU, 1 thread"), (2, "CPU, 2 threads")])
def test_the_cpu_is_told_with_its_threads(threads, text, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert device_text(Machine(device="cpu")) == text
    assert device_text(Machine(4, "cpu", nodes=2)) == f"2 nodes × 2 ({text}; 4 processes, gloo)"
