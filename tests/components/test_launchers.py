from convrun.components.launchers import Job
from convrun.registry import registry


def test_local_trains_once_in_this_process():
    calls = []
    registry.find("launcher", "local").create(Job(train=lambda: calls.append("trained")))
    assert calls == ["trained"]
