"""All that is found out about one run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mpims.pages.accounts import Accounts, make_accounts
from mpims.pages.assessment import Assessment
from mpims.pages.history import History, read_history
from mpims.pages.incidents import Incident, find_incidents
from mpims.pages.outcomes import find_outcomes
from mpims.report.wording import with_hosts
from mpims.storage.trace import What


@dataclass(frozen=True, slots=True)
class Findings:
    """What the text, the charts and the page are made from.

    Attributes
    ----------
    history
        The tables.
    attempts : ndarray, shape (n_attempts,), dtype `mpims.pages.outcomes.ATTEMPT`
    accounts
        Where each core-second went.
    incidents
        What went wrong.
    stops
        Stops by a signal or the time limit, and that the run went on after them.
    sentences
        What limited the run, how that shows, and what to change.
    master_load
        The share of the time in which the master was busy.
    """

    history: History
    attempts: NDArray[np.void]
    accounts: Accounts
    incidents: list[Incident]
    stops: list[Incident]
    sentences: list[str]
    master_load: float

    @property
    def policy(self) -> str:
        """The technique."""
        return str(self.history.manifest.get("options", {}).get("policy", "unknown"))

    @property
    def policy_reason(self) -> str:
        """Why a policy that learns chose as it did, in its last words; empty of others."""
        reasons = self.history.of(What.POLICY)
        return with_hosts(str(reasons[-1].about.get("reason", "")), self.history.hosts) if reasons else ""


def find(folder: Path) -> Findings:
    """Find out about the run in a directory.

    Raises
    ------
    UsageError
        It is no run directory of this version, or its trace is missing, empty or damaged.
    """
    history = read_history(folder)
    attempts = find_outcomes(history)
    accounts = make_accounts(history)
    told = find_incidents(history, attempts)
    incidents, stops = [one for one in told if not one.is_asked], [one for one in told if one.is_asked]
    assessment = Assessment(history, accounts, incidents)
    sentences, load = assessment.sentences(), assessment.master_load
    return Findings(history, attempts, accounts, incidents, stops, sentences, load)
