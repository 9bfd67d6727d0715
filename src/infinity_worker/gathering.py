"""How many items the next engine request takes along, and when it leaves: policy, and nothing else.

Small jobs travel whole and are gathered (`Gathering`); large ones get a share (`LargeShares`).
"""

# A request is not kept smaller than this for the sake of the next one: the engine takes hardly
# longer for so many texts than for one.
_LEAST_ITEMS = 8

# How long the large jobs' share of one request may take the engine: while small jobs come in, and
# while none do. The second bounds what the first small job waits, and what a cancelled job wastes.
_SHARED_S = 0.015
_ALONE_S = 0.5
# Small jobs are expected for so long after the last one.
_EXPECT_SMALL_S = 1.0
_LEAST_SHARE = 8
# Infinity's batch size, unless it is told another: a rest of a batch costs nearly a whole one.
_ENGINE_BATCH = 32
_FIRST_GUESS_PER_S = 1_000.0
# The newest request's weight in the estimate of the engine's rate.
_NEWEST = 0.3


class Gathering:
    """Divides the items of small jobs evenly among the requests that may be under way.

    Who has an answer comes back with the next item. So all that were around when a request ended
    are expected again, and the next request waits for its part of them, unless the engine would
    have nothing to do meanwhile. If it left earlier, requests would carry crumbs; if it took more
    than its part, too few would be left for the request after it, and the engine would wait for
    that one.

    Args:
        requests: how many requests may be under way at a time.
    """

    def __init__(self, requests: int) -> None:
        self._requests = requests
        self._around = 0

    @property
    def enough(self) -> int:
        """The items at which a request is full enough to leave no room for a further job."""
        return max(_LEAST_ITEMS, self._part)

    @property
    def _part(self) -> int:
        return max(1, self._around // self._requests)

    def may_leave(self, waiting: int, under_way: int, *, fills: bool) -> bool:
        """Tell whether a request should be sent now.

        Args:
            waiting: items of small jobs that wait.
            under_way: those that are under way.
            fills: whether what waits is as much as a request may carry.
        """
        self._around = max(self._around, waiting + under_way)
        return waiting > 0 and (fills or under_way == 0 or waiting >= self._part)

    def request_ended(self, waiting: int, under_way: int) -> None:
        """Count anew who is around.

        Args:
            waiting: items of small jobs that wait.
            under_way: those that were under way a moment ago, with the request that ended.
        """
        self._around = waiting + under_way


class LargeShares:
    """Bounds how much of a request large jobs take, by the rate that the engine shows.

    Args:
        requests: how many requests may be under way at a time.
    """

    def __init__(self, requests: int) -> None:
        self._requests = requests
        self._rate = _FIRST_GUESS_PER_S
        self._small_at = -_EXPECT_SMALL_S

    def small_came(self, now: float) -> None:
        """Note that a small job came, at a monotonic time in seconds."""
        self._small_at = now

    def request_took(self, items: int, seconds: float, under_way: int) -> None:
        """Note how long the engine took for a request, beside others that were under way."""
        # The engine's time is divided among the requests under way.
        seen = items * under_way / max(seconds, 1e-6)
        self._rate += _NEWEST * (seen - self._rate)

    def most(self, now: float, with_large: int) -> int:
        """The most items of large jobs that the next request may carry; 0 for none.

        Args:
            now: the monotonic time in seconds.
            with_large: how many of the requests under way carry items of large jobs.
        """
        if now - self._small_at >= _EXPECT_SMALL_S:
            whole_batches = int(self._rate * _ALONE_S) // _ENGINE_BATCH
            return max(1, whole_batches) * _ENGINE_BATCH
        # One request stays free for small jobs, so that they never wait behind two large shares.
        if with_large >= max(1, self._requests - 1):
            return 0
        return max(_LEAST_SHARE, int(self._rate * _SHARED_S))
