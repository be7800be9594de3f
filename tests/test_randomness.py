import random
import subprocess
import sys

import pytest
import torch

from convrun.randomness import Draws, derived_seed, sample_generator, seed_model_draws

CPU = torch.device("cpu")


def test_seeds_are_the_same_on_every_machine_and_in_every_version():
    # blake2b("weights/0") and so on, its first 8 bytes, big-endian, halved. If these change, no old run can be resumed.
    import hashlib

    for parts in (("weights", 0), ("sample", 3, 1, 12), ("model", 0, 99, 1)):
        text = "/".join(map(str, parts)).encode()
        expected = int(hashlib.blake2b(text, digest_size=8).hexdigest(), 16) // 2
        assert derived_seed(*parts) == expected < 2**63


def test_seeds_do_not_depend_on_the_process():
    code = "from convrun.randomness import derived_seed; print(derived_seed('sample', 1, 2, 3))"
    found = {
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": n}, capture_output=True, text=True).stdout
        for n in ("1", "2")
    }
    assert found == {f"{derived_seed('sample', 1, 2, 3)}\n"}


def test_every_part_gives_another_stream():
    parts = [
        ("a", 0, 0, 0),
        ("a", 1, 0, 0),
        ("a", 0, 1, 0),
        ("a", 0, 0, 1),
        ("b", 0, 0, 0),
        ("a", 0, 0),
        ("a", 10, 0),
        ("a", 1, 0),
    ]
    assert len({derived_seed(*p) for p in parts}) == len(parts)


def test_a_samples_draws_depend_on_seed_epoch_and_index_alone():
    first = sample_generator(0, 1, 2).random()
    random.seed(5)
    torch.manual_seed(5)
    assert sample_generator(0, 1, 2).random() == first
    others = {sample_generator(*key).random() for key in ((1, 1, 2), (0, 2, 2), (0, 1, 3), (0, 2, 1))}
    assert len(others | {first}) == 5


def test_a_micro_batchs_draws_depend_on_their_position_and_purpose_alone():
    def numbers(*position):
        draws = Draws.of_micro_batch(*position, CPU)
        return draws.host.random(), torch.rand(1, generator=draws.device).item()

    first = numbers(0, 1, 2, "erasing")
    torch.manual_seed(5)
    assert numbers(0, 1, 2, "erasing") == first
    assert len({numbers(*p) for p in ((0, 1, 2, "mixing"), (0, 1, 3, "erasing"), (0, 2, 2, "erasing"))} | {first}) == 4


def test_no_draw_touches_the_global_generators():
    random.seed(1)
    torch.manual_seed(1)
    states = random.getstate(), torch.get_rng_state()
    draws = Draws.of_micro_batch(0, 0, 0, "erasing", CPU)
    draws.host.random(), torch.rand(3, generator=draws.device), sample_generator(0, 0, 0).random()
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


def test_drop_path_draws_from_what_the_position_says():
    def mask(*position):
        seed_model_draws(*position)
        return torch.empty(64).bernoulli_(0.5)

    first = mask(0, 7, 1)
    assert torch.equal(mask(0, 7, 1), first)
    assert not any(torch.equal(mask(*position), first) for position in ((1, 7, 1), (0, 8, 1), (0, 7, 0)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_neither_reads_nor_depends_on_the_global_generators(workers, train_in, reference, rows, tmp_path):
    random.seed(77)
    torch.manual_seed(77)
    train_in(tmp_path / "run", f"data.workers={workers}", "training.steps=5", "training.epochs=null")
    ours, theirs = (
        next(row["loss"] for row in rows(folder) if row["kind"] == "train") for folder in (tmp_path / "run", reference)
    )
    assert ours == theirs
