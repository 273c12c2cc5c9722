"""How figures are written."""

from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from hotlora.command import names, output
from hotlora.errors import InvalidArgument
from hotlora.v1.tuning_service_pb2 import ListTuningJobsResponse, TuningJob


@pytest.mark.parametrize(
    ("values", "width", "expected"),
    [
        ([], 8, ""),
        ([3.0], 8, "▁"),
        ([8, 7, 6, 5, 4, 3, 2, 1], 8, "█▇▆▅▄▃▂▁"),
        ([4, 4, 0, 0], 2, "█▁"),
        ([1.0, float("nan"), 0.0, float("inf")], 8, "█▁"),
    ],
)
def test_a_sparkline_shows_the_course_in_the_width_there_is(
    values: list[float], width: int, expected: str
) -> None:
    assert output.sparkline(values, width=width) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(-3, "0 s"), (42.4, "42 s"), (190, "3 min 10 s"), (7500, "2 h 5 min"), (260_000, "3 d")],
)
def test_a_duration_has_at_most_two_units(seconds: float, expected: str) -> None:
    assert output.duration(seconds) == expected


@pytest.mark.parametrize(
    ("byte_count", "expected"), [(0, "0 B"), (1536, "1.5 KiB"), (5_000_000, "4.8 MiB"), (2**31, "2.0 GiB")]
)
def test_a_size_is_in_the_unit_that_reads_best(byte_count: int, expected: str) -> None:
    assert output.size(byte_count) == expected


def test_a_time_is_told_as_how_long_ago_and_a_missing_one_not_at_all() -> None:
    now = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
    before = Timestamp()
    before.FromDatetime(datetime(2026, 1, 1, 11, 59, 0, tzinfo=UTC))

    assert output.when(before, now=now) == "1 min 0 s ago"
    assert output.when(Timestamp(), now=now) == ""


@pytest.mark.parametrize(("limit", "pages"), [(5, [5, 3, 1]), (3, [3, 1]), (9, [9, 7, 5])])
def test_a_list_is_fetched_over_as_many_pages_as_it_takes(limit: int, pages: list[int]) -> None:
    asked: list[int] = []

    def fetch(page_size: int, token: str) -> ListTuningJobsResponse:
        """Five jobs, two a page."""
        asked.append(page_size)
        begin = int(token or 0)
        end = begin + min(page_size, 2)
        jobs = [TuningJob(name=f"tuningJobs/{number}") for number in range(5)[begin:end]]
        return ListTuningJobsResponse(tuning_jobs=jobs, next_page_token=str(end) if end < 5 else "")

    found = output.newest(fetch, lambda page: page.tuning_jobs, limit=limit)

    assert [job.name for job in found] == [f"tuningJobs/{number}" for number in range(min(limit, 5))]
    assert asked == pages


def test_text_of_others_keeps_its_letters_and_loses_what_steers_a_terminal() -> None:
    assert output.plain("ä\tb\n\x1b[2J\x07\x9b31mc\r") == "ä\tb\n[2J31mc"


@pytest.mark.parametrize(
    ("typed", "name", "short"),
    [
        (names.version("triage@3"), "adapters/triage/versions/3", "triage@3"),
        (names.version("adapters/a/versions/1"), "adapters/a/versions/1", "a@1"),
        (names.adapter("triage"), "adapters/triage", "triage"),
        (names.job("tuningJobs/x"), "tuningJobs/x", "x"),
        (names.dataset("d"), "datasets/d", "d"),
    ],
)
def test_short_names_stand_for_resource_names_both_ways(typed: str, name: str, short: str) -> None:
    assert typed == name
    assert names.short(name) == short


@pytest.mark.parametrize("text", ["triage", "triage@", "@1", "triage@x", "../a@1"])
def test_what_names_no_version_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        names.version(text)
