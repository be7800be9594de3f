"""Waiting for other processes: at the meeting point, and afterwards, with a store that needs no network."""

import os
import signal
import threading
import time

import pytest

from convrun.distributed.failing.failure import Failure
from convrun.distributed.failing.watch import BEAT_SECONDS, Watch
from convrun.distributed.meeting.children import free_port
from convrun.distributed.meeting.rendezvous import Meeting, connect
from convrun.errors import ConvrunError
from convrun.process.world import World


class OneStore(dict):
    """What a process sees of a store in which only it writes."""

    def check(self, keys):
        return all(key in self for key in keys)

    def set(self, key, value):
        self[key] = value.encode()


class OneBoard:
    failure = None

    def claim(self, failure):
        is_first = self.failure is None
        self.failure = self.failure or failure
        return is_first

    def read(self):
        return self.failure


@pytest.fixture
def watch():
    """Makes the watch of rank 0 of 2; `look` is one of its looks."""

    def make(**place):
        world = World(rank=0, size=2, local_size=2, host="here", **place)
        made = Watch(Meeting(world, None, ("here", "there")), OneStore(), OneBoard(), lambda *_: None, silence=3.0)
        made.look = made._failure
        return made

    return make


def test_a_process_that_gives_no_sign_of_life_in_so_many_looks_is_named(watch):
    ours = watch()
    looks = [ours.look() for _ in range(int(3.0 / BEAT_SECONDS))]
    assert looks[:-1] == [(None, False)] * (len(looks) - 1)
    assert looks[-1] == (Failure(1, "there", "does not answer: no sign of life for 3 s"), True)


def test_a_sign_of_life_restarts_the_count(watch):
    ours = watch()
    for beat in range(100):
        if beat % 4 == 0:
            ours._store.set("beat/1", str(beat))
        assert ours.look() == (None, False)


def test_after_a_job_was_suspended_nobody_is_blamed_for_the_time_that_went_by(watch, monkeypatch):
    ours, now = watch(), time.monotonic()
    assert ours.look() == (None, False)
    monkeypatch.setattr(time, "monotonic", lambda: now + 86_400)
    assert ours.look() == (None, False)


def test_a_word_on_the_board_comes_before_what_is_seen(watch):
    ours = watch()
    ours._board.failure = Failure(1, "there", "no such image")
    assert ours.look() == (ours._board.failure, False)


def test_a_parent_that_went_before_the_watch_began_is_missed_all_the_same(watch):
    assert watch(parent=os.getppid()).look() == (None, False)
    failure, is_ours = watch(parent=os.getppid() + 1).look()
    assert is_ours
    assert failure.text() == "rank 0 on here lost the convrun process that started it; it was killed"


def test_rank_0_that_is_not_at_the_meeting_point_is_missed_there():
    port = free_port()
    with pytest.raises(ConvrunError, match=rf"rank 0 was not at 127\.0\.0\.1, port {port}, within 0\.1 s \(.*refused"):
        connect(World(rank=1, size=2, port=port), seconds=0.1)


def test_a_signal_ends_the_wait_for_rank_0():
    class Stopped(BaseException):
        pass

    def stop(*_):
        raise Stopped

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with pytest.raises(Stopped):  # torch's own wait would go on for an hour
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            connect(World(rank=1, size=2, port=free_port()), seconds=3600)
    finally:
        signal.signal(signal.SIGUSR1, before)
