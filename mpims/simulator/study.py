"""Many simulated runs: policies side by side, on several numbers of workers, and again with other times."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from statistics import fmean, stdev

from mpims.core.deadlines import Deadlines
from mpims.core.ledger import Ledger
from mpims.core.measures import QUEUE_LENGTH
from mpims.core.policies import POLICIES, Policy, PolicySpec, Sizer, parse_policy
from mpims.core.policies.parameters import Parameter
from mpims.core.scheduler import Scheduler
from mpims.errors import UsageError
from mpims.simulator.costs import MAX_BLOCKS, Costs
from mpims.simulator.engine import Engine
from mpims.simulator.machine import MAX_WORKERS, Machine
from mpims.simulator.sidebyside import compute_all

ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What is simulated.

    Parameters
    ----------
    policies
        Techniques as for ``mpims run``; ``all`` stands for those that have what they need. The mean and
        the deviation of the items' times, the overhead of a hand-out and the weights of the ranks need
        not be given: the simulator knows them.
    n_workers
        Numbers of workers.
    machine
        All else about the ranks.
    classic
        The model of the literature: a worker asks when it has nothing left, delivers its chunk whole, and
        nothing is taken over from another.
    n_runs
        Runs of each, with other times drawn; the same ones for all policies and numbers of workers.
    """

    policies: Sequence[str]
    n_workers: Sequence[int]
    machine: Machine
    classic: bool = False
    n_runs: int = 1


@dataclass(frozen=True, slots=True)
class Row:
    """How a policy did on a number of workers: means over all runs, sizes in items.

    Attributes
    ----------
    policy, n_workers
        Which.
    makespan_s, makespan_sd_s
        Seconds from the start to the last result, and their standard deviation over the runs.
    efficiency
        Sum of the items' times over ``n_workers * makespan_s``.
    wasted_s, wasted_sd_s
        ``makespan_s`` less a worker's share of that sum: what overhead, waiting and imbalance cost.
    n_chunks
        Hand-outs, those of what was taken over or had been lost included.
    largest, least
        Chunks.
    n_reissued, n_duplicates
        Chunks that came back from dead ranks; items whose result came when another was there already.
    n_recalled, n_split, n_twins
        Chunks that idle ranks took over at the end: whole, the second half, or as well.
    n_lost
        Ranks that died.
    master_load
        Share of the time in which the master was busy.
    wait_s, longest_wait_s
        Seconds for which a result waited for the master, in the mean and at most.
    most_workers
        Workers that would keep one master busy all the time, at this rate of results; inf if a hand-out
        costs it nothing. ``(t + s) / s``, t being a worker's time for a result and s that of the master.
    """

    policy: str
    n_workers: int
    makespan_s: float
    makespan_sd_s: float
    efficiency: float
    wasted_s: float
    wasted_sd_s: float
    n_chunks: float
    largest: float
    least: float
    n_reissued: float
    n_duplicates: float
    n_recalled: float
    n_split: float
    n_twins: float
    n_lost: float
    master_load: float
    wait_s: float
    longest_wait_s: float
    most_workers: float


def run_study(study: Study, draw: Callable[[int], Costs], n_processes: int = 1) -> list[Row]:
    """Simulate all runs of a study.

    Parameters
    ----------
    study
        What is simulated.
    draw
        Makes the costs of run 0, 1, 2 ...
    n_processes
        Processes that simulate, at most; all together simulate no more blocks and workers than a single run
        may have.

    Returns
    -------
    list of Row
        By policy in the order asked for, and then by number of workers.

    Raises
    ------
    UsageError
        A policy is unknown, or lacks what it needs.
    RunFailed
        A process that simulates was killed.
    """
    first = draw(0)
    n_processes = min(n_processes, MAX_BLOCKS // first.n_blocks, MAX_WORKERS // max(study.n_workers))

    def cases() -> Iterator[tuple[str, Policy, Costs, Machine, bool]]:
        for index in range(study.n_runs):
            costs = draw(index) if index else first
            yield from [  # all at once: what is wrong with a policy is told before anything is simulated
                (label, policy, costs, machine, study.classic)
                for machine in (replace(study.machine, n_workers=n) for n in study.n_workers)
                for label, policy in make_policies(study, costs, machine)
            ]

    found: dict[str, dict[int, list[dict[str, float]]]] = {}
    for label, n_workers, figures in compute_all(_measure, cases(), max(n_processes, 1)):
        found.setdefault(label, {}).setdefault(n_workers, []).append(figures)
    return [_row(label, n, runs) for label, by_n in found.items() for n, runs in by_n.items()]


# -------------------------------------------------------------------------- policies


def make_policies(study: Study, costs: Costs, machine: Machine) -> list[tuple[str, Policy]]:
    """The techniques that were asked for, each with the name that it is shown by, ready for a run.

    Raises
    ------
    UsageError
        A policy is unknown, or lacks what it needs.
    """
    known = what_is_known(costs, machine, classic=study.classic)
    made: dict[str, Policy] = {}
    for text in study.policies:
        for one in possible_policies(known) if text.lower() == ALL else [text]:
            try:
                label, spec = complete(one, known)
                spec.check_workers(machine.n_workers)
            except ValueError as error:
                raise UsageError(str(error)) from None
            made.setdefault(label, spec.make(costs.n_blocks, machine.n_workers, costs.block))
    return list(made.items())


def what_is_known(costs: Costs, machine: Machine, *, classic: bool) -> dict[str, str]:
    """The parameters of techniques that a simulated run has the values of, as they would be written."""
    round_trip_s = 2 * machine.latency_s if classic else 0.0  # else hidden by the chunk already held
    overhead_s = machine.overhead_s + machine.service_s + round_trip_s
    speeds = [1 / machine.slowness.get(rank, 1.0) for rank in range(1, machine.n_workers + 1)]
    values = {"mu": [costs.mean_s], "sigma": [costs.sigma_s], "weights": speeds}
    if overhead_s > 0:
        values["h"] = [overhead_s]
    parameters = {one.name: one for technique in POLICIES.values() for one in technique.parameters}
    return {name: _written(parameters[name], its) for name, its in values.items()}


def _written(parameter: Parameter, values: Sequence[float]) -> str:
    """These values as a user would write them, or the nearest ones that the parameter takes."""
    taken = (min(max(value, parameter.least), parameter.most) for value in values)
    return "/".join(f"{value!r}" for value in taken)


def possible_policies(known: Mapping[str, str]) -> list[str]:
    """The techniques that need nothing but what is known."""
    return [
        name
        for name, technique in POLICIES.items()
        if all(one.default is not None or one.name in known for one in technique.parameters)
    ]


def complete(text: str, known: Mapping[str, str]) -> tuple[str, PolicySpec]:
    """A technique with what is known in place of what is needed and was not given, and its name.

    Raises
    ------
    ValueError
        There is no such technique, or its parameters are wrong; the text says what.

    Examples
    --------
    >>> complete("fac:sigma=0", {"mu": "2.0", "sigma": "1.0"})[1].values
    {'mu': 2.0, 'sigma': 0.0}
    """
    name, colon, rest = text.partition(":")
    technique = next((one for one in POLICIES.values() if one.name.upper() == name.upper()), None)
    if technique is None:
        return "", parse_policy(text)  # which says what there is
    given = {part.partition("=")[0].strip().lower() for part in rest.split(",")}
    needed = [one.name for one in technique.parameters if one.default is None and one.name not in given]
    if len(technique.parameters) == 1 and colon:
        needed = []
    if "h" in needed and "h" not in known:
        raise ValueError(
            f"policy {technique.name} needs the overhead of a hand-out, which is 0 here: give --overhead"
        )
    parts = [rest] if colon else []
    parts += [f"{key}={known[key]}" for key in needed if key in known]
    spec = parse_policy(":".join([name, ",".join(parts)]) if parts else name)
    return technique.name + colon + rest, spec


# ---------------------------------------------------------------------- measurements


def set_up(policy: Policy, costs: Costs, machine: Machine, *, classic: bool) -> tuple[Scheduler, Machine]:
    """What plays a run: its scheduler, new, and the machine as the model has it."""
    scheduler = Scheduler(
        Ledger(costs.n_blocks, 1),
        Sizer(policy),
        Deadlines(inf),
        machine.n_workers,
        queue_length=1 if classic else QUEUE_LENGTH,
        take_over=not classic,
    )
    return scheduler, replace(machine, report_s=inf) if classic else machine


def _measure(
    label: str, policy: Policy, costs: Costs, machine: Machine, classic: bool
) -> tuple[str, int, dict[str, float]]:
    """Simulate one run; give the policy's name, the number of workers, and the figures of a `Row`."""
    scheduler, machine = set_up(policy, costs, machine, classic=classic)
    played = Engine(scheduler, costs, machine, learns=policy.learns).run()
    makespan_s, counters = played.makespan_s, scheduler.counters
    n_workers, service_s = machine.n_workers, machine.service_s
    t = (costs.total_s + machine.overhead_s * counters.n_chunks) / played.n_messages
    figures = {
        "makespan_s": makespan_s,
        "efficiency": costs.total_s / (n_workers * makespan_s),
        "wasted_s": makespan_s - costs.total_s / n_workers,
        "largest": min(played.largest * costs.block, costs.n_items),
        "least": min(played.least * costs.block, costs.n_items),
        "n_duplicates": counters.n_duplicates * costs.block,
        **{name: getattr(counters, name) for name in _COUNTED},
        "master_load": played.served_s / makespan_s,
        "wait_s": played.waited_s / played.n_messages,
        "longest_wait_s": played.longest_wait_s,
        "most_workers": (t + service_s) / service_s if service_s else inf,
    }
    return label, n_workers, figures


_COUNTED = ("n_chunks", "n_reissued", "n_recalled", "n_split", "n_twins", "n_lost")


def _row(policy: str, n_workers: int, runs: Sequence[Mapping[str, float]]) -> Row:
    means = {name: fmean(run[name] for run in runs) for name in runs[0]}
    deviations = {
        f"{name}_sd_s": stdev(run[f"{name}_s"] for run in runs) if len(runs) > 1 else 0.0
        for name in ("makespan", "wasted")
    }
    return Row(policy=policy, n_workers=n_workers, **means, **deviations)
