"""How long OpenMP's threads spin: convrun's default, the user's word, and when libgomp reads it."""

import os
import subprocess
import sys

import pytest

from convrun.process.threads import SPINS, limit_spinning

VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY", "KMP_BLOCKTIME")


def test_threads_that_wait_sleep_soon():
    environment = {"OMP_NUM_THREADS": "2"}
    limit_spinning(environment)
    assert environment == {"OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": str(SPINS)}


@pytest.mark.parametrize("name", VARIABLES)
def test_what_the_user_sets_stays_alone(name):
    environment = {name: "7"}
    limit_spinning(environment)
    assert environment == {name: "7"}


@pytest.mark.parametrize(("set_by_user", "spins"), [({}, SPINS), ({"GOMP_SPINCOUNT": "12345"}, 12345)])
def test_libgomp_reads_it_when_a_verb_loads_torch(tmp_path, set_by_user, spins):
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    command = [sys.executable, "-m", "convrun", "validate", "digits_demo", "--build"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=environment | set_by_user | {"OMP_DISPLAY_ENV": "VERBOSE"},
    )
    if "GOMP_SPINCOUNT" not in done.stderr:
        pytest.skip("this torch does not use libgomp")
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr
