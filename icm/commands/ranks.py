"""One command on several ranks: what `torchrun -m icm.cli verify` starts.

The claims are tried on the CPU whatever the backend; the group carries counts only. With NCCL these travel through
GPU memory: all_gather_object copies them to the current device, which torch.cuda.set_device must therefore have made
a different one for every rank of a machine, or the ranks wait for one another for ever.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import typer

from icm.commands.failure import EXPECTED
from icm.errors import InputError

_PATIENCE = timedelta(days=7)  # a rank may wait for another's share of the work; the default is minutes


def launched() -> bool:
    """Whether torchrun, or another launcher that sets what it sets, has started this process."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


@contextmanager
def ranks() -> Iterator[int]:
    """This process's rank inside its process group, which ends with the block; 0 where there is no launcher.

    Bad input is told by rank 0 alone: the others end with exit code 2 in silence.
    """
    if not launched():
        yield 0
        return
    import torch
    import torch.distributed as dist

    try:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ["WORLD_SIZE"]))
        nccl = torch.cuda.is_available() and torch.cuda.device_count() >= beside and dist.is_nccl_available()
        if nccl:
            torch.cuda.set_device(local)
        dist.init_process_group("nccl" if nccl else "gloo", timeout=_PATIENCE)
    except (ValueError, RuntimeError) as error:
        rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
        raise InputError(
            f"RANK={rank}, WORLD_SIZE={size}: torch.distributed cannot start ({error}); "
            "start it with torchrun, or unset both to run one process"
        ) from error
    number = dist.get_rank()
    try:
        yield number
    except EXPECTED:
        if number:
            raise typer.Exit(2) from None
        raise
    finally:
        dist.destroy_process_group()


def first_checks(number: int, check: Callable[[], object]) -> None:
    """`check()` on rank 0, whose files these are; where it raises, every rank ends."""
    if not launched():
        check()
        return
    import torch.distributed as dist

    failed = [False]
    try:
        if number == 0:
            check()
    except BaseException:
        failed = [True]
        raise
    finally:
        dist.broadcast_object_list(failed, src=0)
    if failed[0]:
        raise typer.Exit(2)
