"""Several processes that train one model together: plain data-parallel, each on its share of a step's batches.

The batches of a step, their numbers and their losses are those of one process. Gradients are summed over the processes
before they are cut and used, so what differs is the order of these sums alone. Every process holds the whole state and
takes the same steps; the first one validates, logs and writes.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing import active_children, get_context
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from headsr.processes import begin_child, children_begin, main_not_run_again, sigterm_as_exit

# A process that waits for the others is ended by who began it, not by its patience: validations may take long.
_PATIENCE = timedelta(days=7)
_LOOPBACK = ("lo", "lo0")
_HEARSAY_S = 5.0


class TeamError(RuntimeError):
    """A process of a training was killed, and the others were ended with it."""


@dataclass(frozen=True)
class Team:
    """Which of how many processes this one is, from 0."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that validates, logs and writes."""
        return self.rank == 0

    def __str__(self) -> str:
        return f" in {self.size} processes" if self.size > 1 else ""

    def say(self, line: str) -> None:
        """Print a line, once for all processes."""
        if self.leads:
            print(line, flush=True)

    def own(self, batches: Sequence[int]) -> Sequence[int]:
        """The batches of a step that are this process's: every ``size``-th."""
        return batches[self.rank :: self.size]

    def agree(self, network: nn.Module) -> None:
        """Give every process the weights and buffers of the first one's network."""
        if self.size > 1:
            for tensor in network.state_dict().values():
                distributed.broadcast(tensor, src=0)

    def sum_gradients(self, network: nn.Module) -> None:
        """Give every process the sum of all processes' gradients."""
        gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
        if self.size > 1 and gradients:
            joined = torch.cat([gradient.flatten() for gradient in gradients])
            distributed.all_reduce(joined)
            for gradient, part in zip(gradients, joined.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def losses_of_all(self, own: Sequence[Mapping[str, Tensor]]) -> list[dict[str, Tensor]]:
        """The losses of every batch of a step, in the order of the batches, from those of this process's ``own``."""
        if self.size == 1:
            return [dict(losses) for losses in own]
        names = list(own[0])
        table = torch.stack([losses[name] for losses in own for name in names])
        tables = [torch.empty_like(table) for _ in range(self.size)]
        distributed.all_gather(tables, table)
        rows = torch.stack(tables).view(self.size, len(own), len(names)).transpose(0, 1).flatten(0, 1)
        return [dict(zip(names, row, strict=True)) for row in rows]


ALONE = Team()


def team_size(batches: int, processes: int) -> int:
    """How many of ``processes`` can share the batches of a step evenly: the largest number that divides them."""
    return max(size for size in range(1, max(1, processes) + 1) if batches % size == 0)


def run_as_team(work: Callable[[Team], None], size: int) -> None:
    """Do the work in this process alone, or in ``size`` new ones at once, on a GPU each where there are GPUs.

    The first error of any of them is raised here, TeamError where one was killed, and the others are ended. They end
    with this process too. They meet by a file in a temporary folder and talk over the loopback alone.
    """
    if size == 1:
        work(ALONE)
        return
    threads = max(1, torch.get_num_threads() // size)
    with ExitStack() as stack:
        stack.enter_context(sigterm_as_exit())
        meeting = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="headsr-team-"))) / "meeting"
        how = {"mp_context": get_context("spawn"), "initializer": begin_child, "initargs": (threads,)}
        pool = stack.enter_context(ProcessPoolExecutor(size, **how))
        with main_not_run_again(), children_begin():
            futures = [pool.submit(_work_as, Team(rank, size), meeting, work) for rank in range(size)]
        try:
            for future in as_completed(futures):
                future.result()
        except Exception as error:
            # Of the connection that a killed process leaves, others may hear before its death is known.
            ended = wait(futures, timeout=_HEARSAY_S).done
            killed = any(isinstance(future.exception(), BrokenProcessPool) for future in ended)
            _end(pool)
            if killed:
                said = f"one of the {size} processes of the training was killed, most often for memory"
                raise TeamError(f"{said}. Run it again: it goes on from its rolling state") from error
            raise
        except BaseException:
            _end(pool)
            raise


def _end(pool: ProcessPoolExecutor) -> None:
    pool.shutdown(wait=False, cancel_futures=True)
    for process in active_children():
        process.terminate()


def _work_as(team: Team, meeting: Path, work: Callable[[Team], None]) -> None:
    """What each process of a team does. It leaves with the others, and only where all went well."""
    loopback = next((name for _, name in socket.if_nameindex() if name in _LOOPBACK), _LOOPBACK[0])
    os.environ.update(GLOO_SOCKET_IFNAME=loopback, NCCL_SOCKET_IFNAME=loopback)
    if torch.cuda.is_available():
        torch.cuda.set_device(team.rank)
    distributed.init_process_group(
        "nccl" if torch.cuda.is_available() else "gloo",
        init_method=meeting.as_uri(),
        rank=team.rank,
        world_size=team.size,
        timeout=_PATIENCE,
    )
    work(team)
    distributed.barrier()
    distributed.destroy_process_group()
