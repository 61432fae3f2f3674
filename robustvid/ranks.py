"""Several processes that do one job, as ``torchrun`` starts them; one process is one rank of one."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from robustvid.errors import RunError

Item = TypeVar("Item")

_PATIENCE = timedelta(minutes=5)  # until a process that does not answer is taken for dead, and torchrun starts all anew


class Ranks(NamedTuple):
    """Which of how many processes this is."""

    rank: int
    size: int

    @property
    def first(self) -> bool:
        """Return whether this is the process that writes and talks."""
        return self.rank == 0

    def any(self, flag: bool, device: torch.device) -> bool:  # noqa: FBT001
        """Return whether ``flag`` is set in any of the processes: all go on, or none."""
        if self.size == 1:
            return flag
        told = torch.tensor(float(flag), device=device)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return bool(told)

    def gather(self, told: Item) -> list[Item]:
        """Return what each of the processes tells, in their order, given to all of them; it has to be picklable."""
        each = [told] * self.size
        if self.size > 1:
            dist.all_gather_object(each, told)
        return each

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return those items that are this process's to do."""
        return items[self.rank :: self.size]

    def wait(self) -> None:
        """Wait until all processes have come this far."""
        if self.size > 1:
            dist.barrier()

    def average_buffers(self, model: nn.Module) -> None:
        """Give all processes the mean of their BatchNorm statistics, which each took from clips of its own."""
        if self.size == 1:
            return
        for buffer in model.buffers():
            if buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer.div_(self.size)

    def spread(self, model: nn.Module, *, sync_batchnorm: bool) -> nn.Module:
        """Return the module whose backward averages gradients over the processes.

        Raises:
            RunError: statistics over several processes were asked for where there is no GPU.
        """
        if self.size == 1:
            return model
        device = next(model.parameters()).device
        if sync_batchnorm and device.type != "cuda":
            raise RunError("sync_batchnorm needs GPUs; torch has no such BatchNorm for the CPU")
        if sync_batchnorm:
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)  # in place, with the same parameters
        # Objectives may call the model twice before one backward, which broadcasting buffers would break.
        known = inspect.signature(DistributedDataParallel).parameters
        buffers = "forward_sync_buffers" if "forward_sync_buffers" in known else "broadcast_buffers"  # its old name
        settings: dict[str, Any] = {buffers: False, "device_ids": [device] if device.type == "cuda" else None}
        return DistributedDataParallel(model, **settings)


ALONE = Ranks(0, 1)


def first_process() -> bool:
    """Return whether this process is alone or the first of those that ``torchrun`` started."""
    return not _started_by_torchrun() or os.environ["RANK"] == "0"


def _started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


@contextmanager
def joined(device: str | torch.device, patience: timedelta = _PATIENCE) -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started; alone where it did not.

    Args:
        device: of the tensors that the processes exchange, which decides how they talk.
        patience: how long they wait for each other.
    """
    if not _started_by_torchrun():
        yield ALONE
        return
    store, rank, count = next(dist.rendezvous("env://", timeout=patience))  # type: ignore[attr-defined]
    # Processes started again share the store of those that died, whose addresses must not be taken for theirs.
    store = dist.PrefixStore(f"attempt {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)  # type: ignore[attr-defined]
    device = torch.device(device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    backend = "nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=patience)
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def local_device(device: torch.device) -> torch.device:
    """Return the GPU of this process, now its current one, where ``torchrun`` started it and none was chosen."""
    if str(device) == "cuda" and _started_by_torchrun():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    return device
