"""Processes that train one network together: one for each GPU, or a few on one machine's cores; torchrun starts them.

Each process takes its share of a batch's queries and of its candidates. The candidates' vectors are gathered, with
their gradients, so that every query meets all of them, as it would in one process; gradients are averaged by torch's
DistributedDataParallel.

Letters: R processes, C rows of this process, N rows of all of them, D width.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

CPU = torch.device("cpu")
PATIENCE = timedelta(hours=12)  # the others wait while the first process validates


@dataclass(frozen=True)
class Team:
    """This process's place among those that train together; by default it is alone."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def leads(self) -> bool:
        """Whether this is the one process that validates, saves and reports."""
        return self.rank == 0

    def share(self, num_rows: int) -> slice:
        """This process's part of so many rows; parts differ by one row at most."""
        return self._share_of(self.rank, num_rows)

    def _share_of(self, rank: int, num_rows: int) -> slice:
        return slice(num_rows * rank // self.size, num_rows * (rank + 1) // self.size)

    def wrap(self, module: nn.Module, *, all_used: bool = True) -> nn.Module:
        """The module, its gradients averaged over the team; `all_used` says that each step uses all parameters."""
        if self.size == 1:
            return module
        return DistributedDataParallel(module, find_unused_parameters=not all_used)

    def align(self, module: nn.Module) -> None:
        """Give all processes the first one's weights."""
        if self.size > 1:
            for weight in module.state_dict().values():
                distributed.broadcast(weight, 0)

    def gather(self, own_CD: Tensor, num_rows: int) -> Tensor:
        """(N, D) rows of all, of which each process has its share; gradients find their way back."""
        if self.size == 1:
            return own_CD
        largest = -(-num_rows // self.size)
        padded_CD = torch.cat([own_CD, own_CD.new_zeros(largest - len(own_CD), own_CD.shape[1])])
        gathered_RCD: Tensor = _Gather.apply(padded_CD)  # type: ignore[no-untyped-call]
        shares = [self._share_of(rank, num_rows) for rank in range(self.size)]
        return torch.cat([part[: share.stop - share.start] for part, share in zip(gathered_RCD, shares, strict=True)])

    def agree(self, *numbers: float) -> list[float]:
        """The first process's numbers, for all."""
        agreed = torch.tensor(numbers, dtype=torch.float64, device=self._numbers_on)
        if self.size > 1:
            distributed.broadcast(agreed, 0)
        return agreed.tolist()

    def mean(self, number: float) -> float:
        """The mean over all processes."""
        total = torch.tensor(number, dtype=torch.float64, device=self._numbers_on)
        if self.size > 1:
            distributed.all_reduce(total)
        return total.item() / self.size

    @property
    def _numbers_on(self) -> torch.device:
        return self.device if self.device.type == "cuda" else CPU


class _Gather(torch.autograd.Function):
    """(R, C, D) of every process's (C, D). A row's gradient is the sum of what all processes' losses say of it."""

    @staticmethod
    def forward(ctx: Any, own_CD: Tensor) -> Tensor:
        parts = [torch.empty_like(own_CD) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, own_CD.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient_RCD = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(gradient_RCD)
        return gradient_RCD[distributed.get_rank()]


def alone() -> Team:
    """One process, on the GPU where there is one."""
    return Team(device=torch.device("cuda") if torch.cuda.is_available() else CPU)


@contextmanager
def join_team() -> Iterator[Team]:
    """The team that torchrun has started this process for; a process that it has not started is alone."""
    if "WORLD_SIZE" not in os.environ:
        yield alone()
        return
    rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda", local) if on_gpu else CPU
    if on_gpu:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if on_gpu else "gloo", timeout=PATIENCE)
    try:
        yield Team(rank, size, device)
    finally:
        distributed.destroy_process_group()
