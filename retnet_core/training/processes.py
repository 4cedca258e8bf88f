"""One process or several: what `torchrun` started, and what they have to agree on."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist

# Before there is a group: as defaults of its functions this module keeps the group that exists when it is first imported, be it by an
# optimiser. The group's threads then outlive it, and now and then abort a process that has finished.
import torch.distributed.nn
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among all, and the device it works on."""

    rank: int
    count: int
    device: torch.device

    @classmethod
    def join(cls, device: str = "auto") -> Processes:
        """Find the others that `torchrun` started, if there are any. `device`: `cpu`, `cuda`, or `auto` for a GPU where there is one."""
        on_gpu = torch.cuda.is_available() if device == "auto" else device == "cuda"
        count, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
        chosen = torch.device("cuda", local) if on_gpu else torch.device("cpu")
        if on_gpu:
            torch.cuda.set_device(chosen)
        if count > 1:
            dist.init_process_group("nccl" if on_gpu else "gloo", device_id=chosen if on_gpu else None)
        return cls(int(os.environ.get("RANK", "0")), count, chosen)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes."""
        if self.count > 1:
            dist.all_reduce(values)
            values /= self.count
        return values

    def any(self, value: bool) -> bool:
        """Whether it is true for any process; every process gets the same answer."""
        if self.count == 1:
            return value
        votes = torch.tensor(float(value), device=self.device)
        dist.all_reduce(votes)
        return bool(votes)

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()

    def leave(self) -> None:
        """Before the process ends."""
        if self.count > 1:
            dist.destroy_process_group()
