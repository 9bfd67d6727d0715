import pytest

from infinity_worker.backoff import CAP_S, FIRST_S, Backoff, retry_after_s


def test_waits_double_up_to_the_cap_with_jitter() -> None:
    backoff = Backoff()
    for failures in range(30):
        full = min(CAP_S, FIRST_S * 2**failures)
        assert full / 2 <= backoff.next_s() <= full


def test_success_starts_over() -> None:
    backoff = Backoff(failures=9)
    backoff.reset()
    assert backoff.next_s() <= FIRST_S


def test_the_servers_wish_is_honoured() -> None:
    assert Backoff(failures=3).next_s(retry_after_s=7.0) == 7.0


def test_a_wish_for_no_wait_at_all_does_not_make_it_spin() -> None:
    assert Backoff().next_s(retry_after_s=0.0) >= FIRST_S / 2


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("0", 0.0),
        ("0.5", 0.5),
        ("", None),
        ("-1", None),
        ("nan", None),
        ("1e9", None),
        ("Wed, 21 Oct 2026 07:28:00 GMT", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    assert retry_after_s({"Retry-After": value}) == seconds


def test_no_retry_after() -> None:
    assert retry_after_s({}) is None
