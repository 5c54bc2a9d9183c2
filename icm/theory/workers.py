"""Tasks carried out: here, in processes of this machine, and over the ranks of torch.distributed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing import get_context
from random import Random
from time import perf_counter
from typing import Any, TypeVar

import torch

Job = TypeVar("Job")
Outcome = TypeVar("Outcome")
_AHEAD = 2  # tasks queued per worker, which a deadline does not recall


class Workers:
    """A way to carry out jobs. `run` takes a function of one job that another process can import, and gives the
    outcomes of this rank's share; `gather` those of all ranks, the same list on every one."""

    def __init__(self, count: int = 1):
        self.pool: ProcessPoolExecutor | None = None
        self.count = count
        self.failure: Exception | None = None
        if count > 1:
            self.pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_quiet)
        distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = torch.distributed.get_rank() if distributed else 0
        self.ranks = torch.distributed.get_world_size() if distributed else 1

    def close(self) -> None:
        """End the processes."""
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def run(
        self,
        function: Callable[[Job], Outcome],
        jobs: Sequence[Job],
        deadline: float,
        told: Callable[[Outcome, int, int], None] = lambda outcome, done, total: None,
    ) -> list[Outcome]:
        """The outcomes of every ranks-th job, in the order of the jobs; none is begun after `deadline`."""
        order = list(range(len(jobs)))
        Random(0).shuffle(order)  # neighbours cost alike, and every rank-th job would be one claim's
        mine = [jobs[i] for i in sorted(order[self.rank :: self.ranks])]
        found: dict[int, Outcome] = {}
        try:
            for index, outcome in self._each(function, mine, deadline):
                found[index] = outcome
                told(outcome, len(found), len(mine))
        except Exception as error:
            if self.ranks == 1:
                raise
            self.failure = error  # told to the others first, who wait in `gather`
        return [found[index] for index in sorted(found)]

    def gather(self, outcomes: list[Outcome]) -> list[Outcome]:
        """The outcomes of all ranks, those of one rank after another's. Where one of them has failed all do."""
        if self.ranks == 1:
            return outcomes
        parts: list[Any] = [None] * self.ranks
        words = None if self.failure is None else f"rank {self.rank}: {self.failure!r}"
        torch.distributed.all_gather_object(parts, (outcomes, words))
        if self.failure is not None:
            raise self.failure
        if failed := [words for _, words in parts if words is not None]:
            raise RuntimeError("; ".join(failed))
        return [outcome for part, _ in parts for outcome in part]

    def _each(
        self, function: Callable[[Job], Outcome], jobs: Iterable[Job], deadline: float
    ) -> Iterator[tuple[int, Outcome]]:
        if self.pool is None:
            with one_thread():
                for index, job in enumerate(jobs):
                    if perf_counter() > deadline:
                        return
                    yield index, function(job)
            return
        waiting: dict[Future[Outcome], int] = {}
        queue = iter(enumerate(jobs))
        while True:
            while len(waiting) < _AHEAD * self.count and perf_counter() <= deadline:
                following = next(queue, None)
                if following is None:
                    break
                waiting[self.pool.submit(function, following[1])] = following[0]
            if not waiting:
                return
            done, _ = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield waiting.pop(future), future.result()


@contextmanager
def one_thread() -> Iterator[None]:
    """Tensor operations on one thread: the same digits however many processes share the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _quiet() -> None:
    """A worker computes on one thread, and leaves interrupts to its parent."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
