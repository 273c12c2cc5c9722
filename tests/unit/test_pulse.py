"""A run that is busy with one long call says so and goes on being heard; one that is stuck falls silent."""

import threading
from itertools import count, repeat

from trainer.channel import Channel
from trainer.events import Heartbeat, Stage, TrainerEvent, Working, decode
from trainer.pulse import STILL_BEATS, Work, work_done


def test_a_long_stage_says_what_it_is_doing_once_and_beats_from_then_on() -> None:
    told: list[TrainerEvent] = []
    heard_enough = threading.Event()

    def hear(line: bytes) -> None:
        told.append(decode(line))
        if len(told) == 3:
            heard_enough.set()

    done = zip(map(float, count()), count(), strict=True)
    channel = Channel(hear, pulse_seconds=0.0, work=lambda: next(done))
    with channel.working_on(Stage.LOADING_BASE_MODEL):
        heard_enough.wait()
    after = len(told)
    channel.check()

    assert isinstance(told[0], Working)
    assert told[0].stage is Stage.LOADING_BASE_MODEL
    assert all(isinstance(event, Heartbeat) for event in told[1:])
    assert len(told) == after


def test_a_stage_in_which_nothing_is_done_any_more_falls_silent() -> None:
    lines: list[bytes] = []
    looks = count()
    looked_long = threading.Event()

    def stuck() -> Work:
        if next(looks) == STILL_BEATS + 20:
            looked_long.set()
        return 1.0, 4096

    with Channel(lines.append, pulse_seconds=0.0, work=stuck).working_on(Stage.SEALING):
        looked_long.wait()

    assert len(lines) == STILL_BEATS


def test_a_short_stage_is_not_worth_a_word() -> None:
    lines: list[bytes] = []
    with Channel(lines.append).working_on(Stage.WRITING):
        pass
    assert not lines


def test_computing_is_work() -> None:
    before = work_done()
    for _ in repeat(None):
        if work_done() != before:
            break
