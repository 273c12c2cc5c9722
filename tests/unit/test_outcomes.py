"""What a version becomes when several engines were asked to serve it."""

from service.serving.onboarding import Rejection
from service.serving.outcomes import Outcome, Proof, Refusal, Released, is_refused, is_released

BAD = Refusal(generation=1, reason=Rejection.NO_EFFECT, message="as the base does")
DEADLY = Refusal(generation=1, reason=Rejection.QUARANTINED, message="died of it")


def test_a_version_has_failed_when_every_ready_engine_rejected_it() -> None:
    assert is_refused({"a": BAD}, {"a": 1})
    assert is_refused({"a": BAD, "b": BAD}, {"a": 1, "b": 1})


def test_it_has_not_failed_while_a_ready_engine_has_not_tried_or_serves_it() -> None:
    assert not is_refused({"a": BAD}, {"a": 1, "b": 1})
    assert not is_refused({"a": BAD, "b": Proof()}, {"a": 1, "b": 1})
    assert not is_refused({}, {"a": 1})


def test_an_engine_that_is_away_is_waited_for_only_if_it_had_proven_it() -> None:
    assert is_refused({"a": BAD}, {"a": 1})  # b never tried
    assert is_refused({"a": BAD, "b": BAD}, {"a": 1})
    assert not is_refused({"a": BAD, "b": Proof()}, {"a": 1})


def test_nothing_follows_while_no_engine_is_ready() -> None:
    assert not is_refused({"a": BAD}, {})
    assert not is_released({"a": Released(generation=1)}, {})


def test_a_new_engine_gets_another_chance_unless_the_old_ones_died_of_it() -> None:
    assert not is_refused({"a": BAD}, {"a": 2})
    assert is_refused({"a": DEADLY}, {"a": 2})


def test_a_version_is_retired_when_no_ready_engine_has_it() -> None:
    gone: dict[str, Outcome] = {"a": Released(generation=1), "b": Proof()}
    assert is_released(gone, {"a": 1})
    assert not is_released(gone, {"a": 1, "b": 1})
    assert not is_released(gone, {"a": 2})
