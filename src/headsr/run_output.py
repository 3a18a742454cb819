"""What a run of the workflow says on the terminal: what was made, how far it is, how long it will take, what failed.

A logger plugin of Snakemake. Whatever is no run, and runs that are asked to be more or less talkative, print as
Snakemake does; its whole log of a run is in .snakemake/log, and where that is it says when something failed.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from logging import ERROR, WARNING, LogRecord
from typing import TextIO

from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent

# Of what Snakemake says beside its events, by how it begins: before a run what is left out, in a run what is not.
_UNSAID = ("Config file ", "Assuming unrestricted shared filesystem usage")
_SAID = ("Building DAG", "Nothing to be done", "Will exit after", "Trying to restart job")
_ENDED = "Exiting because a job execution failed"
_INTERRUPTED = ("Terminating processes on user request", "Cancelling snakemake on user request")
_SILENCE = 60.0, 1800.0  # seconds after which it says what runs: the first time, and at most
_PATIENCE = 1.0  # seconds within which the run knows that it was interrupted, once its jobs have said so


class RunOutput(LogHandlerBase):
    """Prints a line for the plan, for every job that ends, for what runs long, and for all that goes wrong."""

    def __post_init__(self) -> None:
        from snakemake.logging import ColorizingTextHandler

        asked = self.common_settings
        self.stream: TextIO = sys.stdout if asked.stdout else sys.stderr
        self.as_snakemake = ColorizingTextHandler(nocolor=asked.nocolor, stream=self.stream)
        self.is_run = False
        self.is_plain = bool(asked.dryrun or asked.verbose or asked.quiet or asked.printshellcmds or asked.debug_dag)
        self.pace = Pace({})
        self.jobs: dict[int, tuple[str, str, float]] = {}  # of those that run: rule, words, when it began
        self.interrupted, self.ended = threading.Event(), threading.Event()
        self.has_failed = False
        self.failed: dict[int, str] = {}  # jobs that failed and have not ended well since: words, and the log
        self.printed = time.monotonic()

    def emit(self, record: LogRecord) -> None:
        """Print what a record says, if anything."""
        self.is_run |= getattr(record, "event", None) == LogEvent.WORKFLOW_STARTED
        if self.is_plain or not (self.is_run or record.getMessage().startswith(_UNSAID)):
            self.as_snakemake.setFormatter(self.formatter)
            self.as_snakemake.emit(record)
        elif self.is_run and (said := self._said(record)):
            self._print(said)

    def close(self) -> None:
        """Say no more."""
        self.ended.set()
        super().close()

    def _print(self, said: str) -> None:
        with suppress(BrokenPipeError):  # nobody reads on, and the run goes on
            print(said, file=self.stream, flush=True)
        self.printed = time.monotonic()

    def _said(self, record: LogRecord) -> str:
        event, text = getattr(record, "event", None), record.getMessage()
        if event == LogEvent.RUN_INFO:
            return self._begin(record.stats)
        if event == LogEvent.JOB_INFO:
            self.jobs[record.jobid] = (record.rule_name, record.rule_msg or record.rule_name, time.monotonic())
            return ""
        if event == LogEvent.JOB_FINISHED:
            return self._finished(record.job_id)
        if text.startswith(_INTERRUPTED):
            self.interrupted.set()
            return "Interrupted: ending the jobs that run. The same command goes on."
        if self.interrupted.is_set():  # jobs that end because of it have not failed
            return ""
        if record.levelno >= WARNING:
            self.has_failed |= record.levelno >= ERROR
            if event == LogEvent.JOB_ERROR:
                _, words, _ = self.jobs.pop(record.jobid, ("", record.rule_name, 0.0))
                self.failed[record.jobid] = f"{words}: {', '.join(record.log)}"
            return self._what_failed() if text.startswith(_ENDED) else self.format(record)
        if getattr(record, "for_people", False) or text.startswith(_SAID):
            return text
        return text if text.startswith("Complete log") and self.has_failed else ""

    def _begin(self, stats: Mapping[str, int]) -> str:
        """The line of the plan. From here on, jobs write to the terminal too."""
        jobs = {rule: number for rule, number in stats.items() if rule not in ("total", "all")}
        self.pace = Pace(jobs)
        self.stream = _behind(self.stream, self.interrupted)
        threading.Thread(target=self._break_silence, daemon=True).start()
        words = ", ".join(f"{number} {rule}" for rule, number in jobs.items())
        return f"{_jobs(sum(jobs.values()))}: {words}"

    def _what_failed(self) -> str:
        """The last words of a run in which jobs failed."""
        return "\n  ".join([f"{_jobs(len(self.failed))} failed; the same command tries again", *self.failed.values()])

    def _finished(self, job: int) -> str:
        self.failed.pop(job, None)
        rule, words, began = self.jobs.pop(job, ("all", "", 0.0))
        if rule not in self.pace.jobs:  # a target: it makes nothing itself
            return ""
        now = time.monotonic()
        running = sum(now - since for _, _, since in self.jobs.values())
        return f"{self.pace.after(rule, now - began, running=running)}  {words}"

    def _break_silence(self) -> None:
        """Say what runs where no job has ended for long, and then twice as long."""
        first, most = _SILENCE
        pause = first
        while not (self.ended.wait(pause) or self.interrupted.is_set()):
            silent = time.monotonic() - self.printed
            if silent >= pause and (said := self.what_runs()):
                self._print(said)
            pause = min(2 * pause, most) if silent >= pause else first

    def what_runs(self) -> str:
        """The job that has run longest, and how many run beside it; '' where none does."""
        running = sorted((began, words) for _, words, began in self.jobs.copy().values())
        if not running:
            return ""
        began, words = running[0]
        more = f" (and {len(running) - 1} more)" if running[1:] else ""
        return f"       {_clock(self.pace.elapsed)}, running for {_clock(time.monotonic() - began)}  {words}{more}"

    @property
    def writes_to_stream(self) -> bool:
        """See LogHandlerBase."""
        return True

    @property
    def writes_to_file(self) -> bool:
        """See LogHandlerBase."""
        return False

    @property
    def has_filter(self) -> bool:
        """See LogHandlerBase: what is printed as Snakemake does is filtered as it does."""
        return False

    @property
    def has_formatter(self) -> bool:
        """See LogHandlerBase: failures are printed as Snakemake does, with the end of their logs."""
        return False

    @property
    def needs_rulegraph(self) -> bool:
        """See LogHandlerBase."""
        return False


class Pace:
    """How far a run is, and how long the rest takes: by how long jobs of each rule took, and how many ran at once."""

    def __init__(self, jobs: Mapping[str, int], clock: Callable[[], float] = time.monotonic) -> None:
        self.jobs, self.clock = dict(jobs), clock
        self.began = clock()
        self.done: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()

    def after(self, rule: str, seconds: float, *, running: float = 0.0) -> str:
        """What to say when a job has ended that took so many seconds: ``[ 12%] 0:35, about 4:10 left``.

        ``running`` is what those that run have taken so far, in seconds, all together.
        """
        self.done[rule] += 1
        self.seconds[rule] += seconds
        return f"[{self.done.total() / sum(self.jobs.values()):4.0%}] {_clock(self.elapsed)}, {self._left(running)}"

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return self.clock() - self.began

    def _left(self, running: float) -> str:
        busy, ended = self.seconds.total(), self.done.total()
        rest = {rule: number - self.done[rule] for rule, number in self.jobs.items() if number > self.done[rule]}
        if not rest:
            return "done"
        usual = busy / ended  # of a rule of which none has ended yet
        work = sum(n * (self.seconds[rule] / self.done[rule] if self.done[rule] else usual) for rule, n in rest.items())
        at_once = max(1.0, (busy + running) / max(self.elapsed, 1e-9))
        return f"about {_clock(max(0.0, work - running) / at_once)} left"


def _behind(stream: TextIO, interrupted: threading.Event) -> TextIO:
    """Stand between the jobs' processes and the terminal, to keep to itself what they say of an interrupt.

    Ctrl-C reaches every process, and each prints where it was. Whatever else they print goes on, a moment later.
    Returns where the run itself prints from now on.
    """
    terminal = open(os.dup(stream.fileno()), "wb")  # noqa: SIM115 - open until the process ends
    from_jobs, to_us = os.pipe()
    os.dup2(to_us, 2)
    os.close(to_us)

    def pass_on() -> None:
        while said := os.read(from_jobs, 65536):
            if not interrupted.wait(_PATIENCE):
                with suppress(OSError):  # whether or not anybody reads it, jobs must not wait for us
                    terminal.write(said)
                    terminal.flush()

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()

    def end() -> None:
        sys.stderr.flush()
        os.dup2(terminal.fileno(), 2)
        thread.join(2 * _PATIENCE)  # not for ever: a process that outlives its job holds the other end

    atexit.register(end)
    return open(os.dup(terminal.fileno()), "w", encoding=stream.encoding, errors=stream.errors)


def _jobs(number: int) -> str:
    return "1 job" if number == 1 else f"{number} jobs"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}" if minutes >= 60 else f"{minutes}:{seconds:02d}"
