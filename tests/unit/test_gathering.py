"""When a request leaves and with how much: the policy alone, against clients that come back."""

import random
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infinity_worker.gathering import Gathering, LargeShares

LEAST = 8
BATCH_S, TEXT_S = 0.008, 0.002
"""The engine's time for a request, and for each text in it."""


def closed_loop(
    clients: int, requests: int, turns: int, come_back_s: float, seed: int
) -> list[tuple[int, float]]:
    """Clients of one text each, and an engine that answers one request after the other.

    Returns:
        For each request its items, and how long the engine had nothing to do before it.
    """
    draw = random.Random(seed)  # noqa: S311  # no secret
    gathering = Gathering(requests)
    arrivals = deque(sorted(draw.uniform(0, come_back_s) for _ in range(clients)))
    under_way: deque[tuple[float, int]] = deque()
    waiting, now, free_at = 0, 0.0, 0.0
    sent: list[tuple[int, float]] = []
    while len(sent) < turns:
        if under_way and (not arrivals or under_way[0][0] <= arrivals[0]):
            now, items = under_way.popleft()
            gathering.request_ended(waiting, items + sum(each for _, each in under_way))
            back = (now + draw.uniform(0, come_back_s) for _ in range(items))
            arrivals = deque(sorted([*arrivals, *back]))
        else:
            now = arrivals.popleft()
            waiting += 1
        while len(under_way) < requests and gathering.may_leave(
            waiting, sum(each for _, each in under_way), fills=False
        ):
            items = min(waiting, gathering.enough)
            waiting -= items
            sent.append((items, max(0.0, now - free_at)))
            free_at = max(now, free_at) + BATCH_S + TEXT_S * items
            under_way.append((free_at, items))
    return sent


@given(
    clients=st.integers(2 * LEAST, 200),
    requests=st.integers(2, 4),
    seed=st.integers(0, 1_000),
)
def test_requests_settle_at_equal_parts_and_the_engine_is_never_without_one(
    clients: int, requests: int, seed: int
) -> None:
    part = clients // requests
    settled = closed_loop(clients, requests, 40, BATCH_S / 2, seed)[20:]
    for items, idle_s in settled:
        assert part <= items <= max(LEAST, part)
        assert idle_s == 0


@given(clients=st.integers(1, 40), requests=st.integers(1, 5), seed=st.integers(0, 1_000))
def test_however_slowly_they_come_back_nobody_waits_for_ever(
    clients: int, requests: int, seed: int
) -> None:
    assert len(closed_loop(clients, requests, 50, 1.0, seed)) >= 50


@pytest.mark.parametrize(
    ("waiting", "under_way", "leaves"),
    [
        (0, 0, False),
        (1, 0, True),
        (500, 0, True),
        (1, 1, True),
        (1, 2, True),
        (1, 3, False),
        (15, 17, False),
        (16, 17, True),
    ],
)
def test_what_leaves_when_nobody_is_expected(waiting: int, under_way: int, leaves: bool) -> None:  # noqa: FBT001  # a column
    assert Gathering(2).may_leave(waiting, under_way, fills=False) is leaves


def test_those_who_were_just_answered_are_expected_until_the_engine_is_idle() -> None:
    gathering = Gathering(2)
    gathering.request_ended(0, 32)
    assert not gathering.may_leave(15, 15, fills=False)
    assert gathering.may_leave(15, 15, fills=True)
    assert gathering.may_leave(15, 0, fills=False)
    assert gathering.enough == 16


@given(st.lists(st.tuples(st.integers(1, 2_048), st.floats(0, 100)), max_size=30))
def test_a_large_share_is_bounded_by_the_engines_rate(took: list[tuple[int, float]]) -> None:
    shares = LargeShares(2)
    for items, seconds in took:
        shares.request_took(items, seconds, 1)
    alone = shares.most(now=10.0, with_large=0)
    assert alone >= 32
    assert alone % 32 == 0
    shares.small_came(10.0)
    assert 8 <= shares.most(now=10.5, with_large=0) <= max(8, alone)
    assert shares.most(now=10.5, with_large=1) == 0
    assert shares.most(now=11.0, with_large=1) == alone
