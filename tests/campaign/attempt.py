"""One trial from its first fault to its comparison."""

import random
import shutil
import time
from collections import Counter
from pathlib import Path

from tests.campaign.faults import suited
from tests.campaign.subjects import Subject
from tests.campaign.table import Tried
from tests.campaign.trial import Lost, Reference, Trial

FAULTS_A_TRIAL = 8


def attempt(number: int, seed: int, subject: Subject, reference: Reference, folder: Path, end: float | None) -> Tried:
    """One trial, and what became of it."""
    draws = random.Random(f"{seed}/{number}")
    trial = Trial(subject, reference, folder, draws)
    struck: Counter[str] = Counter()
    try:
        for _ in range(FAULTS_A_TRIAL):
            if trial.is_finished() or (end is not None and time.monotonic() > end):
                break
            faults = suited(trial)
            fault = draws.choices(faults, [f.weight for f in faults])[0]
            doing = fault.name
            try:
                struck[fault.group] += fault.strike(trial)
            except Lost:
                struck[fault.group] += 1
                raise
        doing = "the last start"
        trial.finish()
    except Lost as error:
        return Tried(number, subject.name, struck, trial.starts, f"{doing}: {error}")
    finally:
        trial.close()
    shutil.rmtree(folder)
    return Tried(number, subject.name, struck, trial.starts)
