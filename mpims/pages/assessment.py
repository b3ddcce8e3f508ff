"""What limited a run and what to change, in three sentences, from its figures."""

from __future__ import annotations

from math import ceil, inf

import numpy as np

from mpims.core.deadlines import FACTOR, FLOOR_S
from mpims.pages.accounts import NAMES, Accounts, Use
from mpims.pages.history import History
from mpims.pages.incidents import Incident
from mpims.pages.slowest import n_blocks_of, paces, slowest, spread
from mpims.pages.words import core_time_text, items_text, time_text, two_digits
from mpims.report.wording import counted
from mpims.storage.trace import What

SMALL = 0.03
"""A loss below this share of the core-seconds limits nothing."""
SLOW = 1.3
"""A rank that takes so many times the median per item is slow."""
BUSY_MASTER = 0.5
"""A master that is busy for such a share of the time makes ranks wait."""
AIM = 0.01
"""Advice is to bring a loss below this share."""
CROWDED_S = 0.5e-3
"""What is done for a block outside of the kernel takes less than this, unless its rank had to wait."""
FEW_BLOCKS = 10
"""With fewer blocks than this for each rank their number is what makes a tail."""

_LIMITS = {
    Use.START: "its start",
    Use.WAIT: "the way to the master",
    Use.COMMUNICATION: "what is done between two calls of the kernel",
    Use.TAIL: "its end",
    Use.RECOVERY: "what went wrong",
}


class Assessment:
    """The sentences on one run.

    Parameters
    ----------
    history, accounts, incidents
        What is known of it.

    Attributes
    ----------
    master_load
        The share of the time in which the master was busy with deliveries and hand-outs.
    """

    def __init__(self, history: History, accounts: Accounts, incidents: list[Incident]) -> None:
        self._history, self._accounts, self._incidents = history, accounts, incidents
        parts = history.parts
        self._wall_s = history.wall_s or 1.0
        self._n_ranks = max(stretch.n_workers for stretch in history.stretches)
        self._n_parts = len(parts)
        self._part_items = float((parts["stop"] - parts["start"]).mean())
        self._part_busy_s = float(parts["busy_s"].mean())
        self._spread = spread(history)
        self._paces = paces(history)
        self.master_load = float(parts["service_s"].sum(dtype=float)) / self._wall_s

    def sentences(self) -> list[str]:
        """What limited the run, how that shows, and what to change."""
        totals, shares = self._accounts.totals, self._accounts.shares
        worst = max(_LIMITS, key=lambda use: float(totals[use]))
        share = float(shares[worst])
        went = f"{shares[Use.COMPUTE]:.1%} of {core_time_text(float(totals.sum()))} went into results"
        if shares[Use.UNDER_WAY] >= SMALL:
            went += f", {shares[Use.UNDER_WAY]:.1%} into what is under way"
        if self._slowness > max(share, SMALL):
            limit = f"a slow rank: {went}, but {self._slowness:.0%} of the machine's speed was missing"
            return [f"What limited this run is {limit}.", self._about_slow_rank(), self._more_ranks()]
        if share < SMALL:
            limit = f"the kernel itself: {went}, and no loss is above {SMALL:.0%}"
            return [f"What limited this run is {limit}.", self._about_kernel(), self._more_ranks()]
        lost_s = time_text(float(totals[worst]) / self._n_ranks)
        of_all = f"{lost_s} of {time_text(self._wall_s)} for each rank"
        lost = f"{share:.1%} into {NAMES[worst]}, {of_all}"
        first = f"What limited this run is {_LIMITS[worst]}: {went}, {lost}."
        about = {
            Use.START: self._about_start,
            Use.WAIT: self._about_waiting,
            Use.COMMUNICATION: self._about_communication,
            Use.TAIL: self._about_tail,
            Use.RECOVERY: self._about_recovery,
        }
        return [first, *about[worst]()]

    # --------------------------------------------------------------------- the kernel

    @property
    def _slowness(self) -> float:
        """The share of the ranks' speed that is missing, were all as fast as the median."""
        slow = [pace for pace in self._paces.values() if pace >= SLOW]
        return sum(1 - 1 / pace for pace in slow) / self._n_ranks

    def _about_slow_rank(self) -> str:
        rank = max(self._paces, key=lambda r: self._paces[r])
        n_slow = sum(pace >= SLOW for pace in self._paces.values())
        others = f" ({n_slow - 1} more took above {SLOW:g} times)" if n_slow > 1 else ""
        where = self._history.where(rank)
        return (
            f"{_capital(where)} took {self._paces[rank]:.1f} times as long per item as the "
            f"median rank{others}: see what else runs on that host, and how its cores are bound."
        )

    def _about_kernel(self) -> str:
        its = self._spread
        return (
            f"A block{self._of_items()} takes {time_text(its.mean_s)} in the mean and "
            f"{time_text(its.longest_s)} at most; the master was busy for {self.master_load:.1%} of "
            "the time."
        )

    def _more_ranks(self) -> str:
        """How many ranks could be fed: by the longest block, the number of blocks, and the master."""
        total_s = float(self._accounts.totals[Use.COMPUTE])
        load = self.master_load / self._n_ranks
        n_fed = BUSY_MASTER / load if load else inf
        longest_s, n_blocks = self._spread.longest_s, self._history.n_blocks
        few = f"there {'is' if n_blocks == 1 else 'are'} {counted(n_blocks, 'block')}"
        few += f", the longest of {time_text(longest_s)}"
        busy = f"the master is busy for {self.master_load:.0%} of the time"
        bounds = {  # why, and why not even one rank keeps within that
            ("then the longest block takes a tenth of the run", few): total_s / (10 * longest_s),
            (f"then there are {FEW_BLOCKS} blocks for each", few): n_blocks / FEW_BLOCKS,
            (f"then the master is busy for {BUSY_MASTER:.0%} of the time", busy): n_fed,
        }
        (then, already), bound = min(bounds.items(), key=lambda its: its[1])
        why, n_most = then if bound >= 1 else already, max(two_digits(bound), 1)
        if n_most <= 1.5 * self._n_ranks:
            ranks = counted(n_most, "rank")
            return f"More than about {ranks} would not help ({why}): a faster kernel would."
        faster = time_text(self._wall_s * self._n_ranks / n_most)
        is_whole = self._history.stretches[-1].is_whole
        took = "it would take" if is_whole else "what is done would have taken"
        return (
            f"More ranks would help, up to about {n_most:,} ({why}), on which {took} about "
            f"{faster}; beyond that, a faster kernel."
        )

    # --------------------------------------------------------------------- the losses

    def _about_start(self) -> tuple[str, str]:
        starts_s = self._accounts.seconds[:, Use.START]
        row, mean_s = int(np.argmax(starts_s)), float(starts_s.mean())
        last = self._history.where(int(self._accounts.ranks[row]))
        return (
            f"Ranks took {time_text(mean_s)} in the mean until they had loaded the job and been through "
            f"setup(); the last of them was {last}, after {time_text(float(starts_s[row]))}.",
            f"A run of {time_text(mean_s / AIM)} or more loses less than {AIM:.0%} to that: compute more "
            "in one run, or on fewer ranks, or let setup() and the job's imports do less.",
        )

    def _about_waiting(self) -> tuple[str, str]:
        parts = self._history.parts
        under_way_s = float(np.mean(parts["received_s"] - parts["ended_s"]))
        service_s = time_text(float(parts["service_s"].mean(dtype=float)))
        why = (
            f"The master was busy for {self.master_load:.0%} of the time, {service_s} for "
            f"{self._each_delivery()}, and {time_text(under_way_s)} passed in the mean until it had "
            "one."
        )
        if self.master_load > BUSY_MASTER:
            return why, f"{self._larger_chunks(5)} would leave it idle for most of the time."
        master = self._history.where(self._history.of(What.BEGAN)[-1].rank)
        return why, (
            f"{self._larger_chunks(2)} would hide the way to the master and back; and the master, "
            f"{master}, must have a core at once when it needs one."
        )

    def _about_communication(self) -> tuple[str, str]:
        total_s = float(self._accounts.totals[Use.COMMUNICATION])
        each_s = total_s / self._n_parts
        n_blocks = float(n_blocks_of(self._history.parts, self._history.block).mean())
        why = (
            f"{_capital(self._each_delivery())} took its rank {time_text(each_s)} outside of the kernel, "
            f"beside {time_text(self._part_busy_s)} in it for {n_blocks:,.1f} blocks."
        )
        if total_s / self._spread.n_blocks > CROWDED_S:
            cost = time_text(total_s / self._spread.n_blocks)
            return why, (
                f"That is {cost} a block, far more than messages take: see that no more processes compute "
                "on a host than it has cores, how ranks are bound to them, and how large the results are."
            )
        factor = each_s / (AIM * self._part_busy_s) if self._part_busy_s else inf
        if n_blocks > FEW_BLOCKS:
            block = two_digits(self._history.block * min(max(factor, 2), 64))
            now = self._history.block
            return why, f"Larger blocks are what helps: `block = {block}` in the job instead of {now}."
        return why, f"{self._larger_chunks(factor)} would bring that near {AIM:.0%}."

    def _about_tail(self) -> tuple[str, str]:
        history, its = self._history, self._spread
        ends_s = [stretch.end_s for stretch in history.stretches]
        tail_s = float(np.sum(np.array(ends_s) - self._accounts.tail_s))
        if history.n_blocks < FEW_BLOCKS * self._n_ranks:
            return (
                f"There {'was' if history.n_blocks == 1 else 'were'} {counted(history.n_blocks, 'block')}"
                f"{self._of_items()} for {counted(self._n_ranks, 'rank')}, so that nothing was left to "
                f"hand out for {time_text(tail_s)} at the end; the longest block took "
                f"{time_text(its.longest_s)}.",
                self._smaller_blocks(),
            )
        if its.longest_s > 0.4 * tail_s:
            part = slowest(history, 1)[0]
            within = items_text(int(part["start"]), int(part["stop"]))
            return (
                f"The longest block, in {within} on {history.where(int(part['rank']))}, took "
                f"{time_text(its.longest_s)}, {its.longest_s / its.mean_s:,.0f} times the mean, and from "
                f"the last hand-out of fresh items to the end it was {time_text(tail_s)}.",
                self._smaller_blocks(),
            )
        most = max(two_digits(AIM * self._wall_s * history.block / its.mean_s), 1)
        return (
            f"From the last hand-out of fresh items to the end it was {time_text(tail_s)}; chunks were "
            f"of {counted(round(self._part_items), 'item')} in the mean, which take "
            f"{time_text(self._part_busy_s)}.",
            f"Chunks of at most {counted(most, 'item')}, {AIM:.0%} of the run (`--chunk 1:{most}`), would "
            "end closer together, as they do with `--policy auto` or FAC2.",
        )

    def _about_recovery(self) -> tuple[str, str]:
        if not self._incidents:
            return (
                "What was under way when the run ended before its time is not on record, and was lost.",
                "A signal ahead of the walltime (SIGTERM, SIGUSR1) lets ranks deliver what they have.",
            )
        first, n = self._incidents[0], len(self._incidents)
        counted = "One thing" if n == 1 else f"{n:,} things"
        why = (
            f"{counted} went wrong, the first after {time_text(first.t)}: {first.what}; "
            f"{first.remedy or 'nothing was done about it'}."
        )
        mend = "What to mend is the cause: the run itself went on without loss of results."
        return why, self._shorter_timeout() or mend

    def _shorter_timeout(self) -> str:
        """A deadline that would have found silent ranks much earlier, if there were any."""
        history = self._history
        given = history.manifest.get("options", {}).get("timeout_s")
        wanted = max(ceil(3 * self._spread.longest_s), 1)
        in_force_s = float(given) if given else max(FLOOR_S, FACTOR * self._spread.longest_s)
        if not history.of(What.SUSPECT) or in_force_s < 2 * wanted:
            return ""
        return (
            f"No block took longer than {time_text(self._spread.longest_s)}: `--timeout {wanted}` would "
            f"have found silent ranks after {wanted} s, where it took {time_text(in_force_s)}."
        )

    # ------------------------------------------------------------------------- words

    def _each_delivery(self) -> str:
        return "the one delivery" if self._n_parts == 1 else f"each of {self._n_parts:,} deliveries"

    def _of_items(self) -> str:
        block = self._history.block
        return f" of {block:,} items" if block > 1 else ""

    def _larger_chunks(self, factor: float) -> str:
        """Chunks so many times as large, as long as each rank gets some."""
        most = self._history.n_items / (4 * self._n_ranks)
        n = max(two_digits(min(self._part_items * max(factor, 1.0), most)), 1)
        return (
            f"Chunks of at least {counted(n, 'item')} (`--chunk {n}`; the mean was {self._part_items:,.0f})"
        )

    def _smaller_blocks(self) -> str:
        block = self._history.block
        if block > 1:
            smaller = max(two_digits(block / 8), 1)
            return (
                f"Smaller blocks would end closer together (`block = {smaller}` in the job instead of "
                f"{block}) if the kernel is not slower on them; or take fewer ranks."
            )
        return (
            "A block is one item already: put the longest items first in items(), divide them, or take "
            "fewer ranks."
        )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
