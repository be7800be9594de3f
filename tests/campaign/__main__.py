"""Disturbs many small runs, several at a time, until enough were killed; prints what survived.

A trial takes one subject, starts it again and again under a random fault each time, then lets it finish, and compares
it with the run of the same recipe that nobody disturbed: weights, last checkpoint and metrics, bit for bit.
"""

import argparse
import concurrent.futures
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # several runs share the cores, and OpenMP's threads wait by spinning

from tests.campaign.attempt import attempt
from tests.campaign.faults import groups
from tests.campaign.process import import_what_forks_need
from tests.campaign.subjects import SUBJECTS
from tests.campaign.table import Report
from tests.campaign.trial import record


def main() -> int:
    """Runs the campaign; 0 if nothing was lost, 1 otherwise."""
    options = _options()
    folder = Path(tempfile.mkdtemp(prefix="campaign-", dir=options.folder))
    end = time.monotonic() + 60 * options.minutes if options.minutes else None
    context = multiprocessing.get_context("spawn")
    report, start = Report(groups()), time.monotonic()
    with concurrent.futures.ProcessPoolExecutor(
        options.jobs, mp_context=context, initializer=import_what_forks_need
    ) as pool:
        references = dict(zip(SUBJECTS, pool.map(record, SUBJECTS, [folder / s.name for s in SUBJECTS]), strict=True))
        numbers, running = iter(range(10**9)), set()
        while running or report.is_wanted(options.kills, end):
            while len(running) < options.jobs and report.is_wanted(options.kills, end):
                number = next(numbers)
                subject = SUBJECTS[number % len(SUBJECTS)]
                place = folder / f"trial-{number}"
                running.add(pool.submit(attempt, number, options.seed, subject, references[subject], place, end))
            done, running = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in done:
                report.add(future.result())
                report.show_progress(time.monotonic() - start)
    print(report.text(options.seed, time.monotonic() - start))
    if report.lost:
        print(f"what was lost lies in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.campaign", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="how many kills there must be (default: 200)")
    parser.add_argument("--minutes", type=float, help="stop after this time, however many there were")
    parser.add_argument("--seed", type=int, default=0, help="of all random choices but the moments (default: 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="trials at a time (default: the cores)")
    parser.add_argument("--folder", type=Path, help="where the runs lie (default: the system's temporary folder)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
