"""`convrun import` as it is typed: what it prints, its exit codes, and that it stays light."""

import io
import subprocess
import sys

import pytest

from convrun.entry import main
from convrun.recipe import load_recipe

COMMAND = "python -m torch.distributed.launch --nproc_per_node=8 main.py --model convnext_tiny --update_freq 4"


@pytest.fixture
def convrun(monkeypatch, capsys):
    """Runs the command line in this process; returns its exit code, output and errors."""

    def run(*words, stdin=""):
        monkeypatch.setattr(sys, "argv", ["convrun", "import", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err

    return run


def test_the_recipe_is_printed_and_loads(convrun, tmp_path):
    code, out, err = convrun("--", *COMMAND.split())
    assert (code, err) == (0, "")
    (tmp_path / "printed.yaml").write_text(out)
    recipe = load_recipe(tmp_path / "printed.yaml")
    assert recipe.training.batch_size == 8 * 64 * 4
    assert out.startswith("# Made by convrun import from the command\n# python -m torch.distributed.launch")


@pytest.mark.parametrize("flags", [["--output"], ["-o"]])
def test_output_writes_a_new_file_and_overwrites_none(convrun, tmp_path, flags):
    path = tmp_path / "mine.yaml"
    code, out, _ = convrun(*flags, path, "--", *COMMAND.split())
    assert (code, out) == (0, f"{path}: look at its comments, then convrun validate {path}\n")
    before = path.read_text()
    assert load_recipe(path).model.name == "convnext_tiny"
    code, out, err = convrun(*flags, path, "--", *COMMAND.split())
    assert (code, out, err) == (2, "", f"error: {path} exists already; name another file\n")
    assert path.read_text() == before
    code, _, err = convrun(*flags, tmp_path / "missing" / "mine.yaml", "--", *COMMAND.split())
    assert (code, "cannot be written" in err) == (1, True)


def test_a_command_comes_from_a_file_or_from_standard_input(convrun, tmp_path):
    script = tmp_path / "train.sh"
    script.write_text("#!/bin/bash\nDATA=/data/in1k\n" + COMMAND + " \\\n  --data_path $DATA\n")
    by_file, by_stdin = convrun("--from", script), convrun("--from", "-", stdin=script.read_text())
    assert by_file == by_stdin
    assert (by_file[0], "root: /data/in1k" in by_file[1]) == (0, True)
    as_one_text = convrun(f"{COMMAND} --data_path /data/in1k")
    assert as_one_text == by_file


def test_the_flags_after_two_dashes_are_the_commands_own(convrun):
    code, out, _ = convrun("--", "python", "train.py", "--output", "/out", "--model", "convnext_tiny")
    assert (code, "--output /out: convrun run THIS.yaml --output /out" in out) == (0, True)


def test_processes_multiply_the_batch_where_the_command_does_not_say(convrun):
    assert "batch_size: 64\n" in convrun("--", "python", "main.py")[1]
    assert "batch_size: 512" in convrun("--processes", 8, "--", "python", "main.py")[1]
    code, _, err = convrun("--processes", 4, "--", *COMMAND.split())
    assert (code, err) == (2, "error: --processes 4, but the command starts 8 (the launcher starts 8)\n")


def test_head_is_told_where_the_command_does_not(convrun):
    words = ["--", "python", "main.py", "--finetune", "a.pth", "--head_init_scale", "0.1"]
    assert "head: keep" in convrun(*words)[1]
    assert "head: reinit" in convrun("--head", "reinit", *words)[1]


@pytest.mark.parametrize(("words", "message"), [
    ([], "there is no command to import: convrun import -- python main.py ..., or --from FILE"),
    (["--", "ls", "-l"], "'ls' is not a training command"),
    (["--", "python", "setup.py"], "the script 'setup.py' is unknown"),
    (["--", "python", "main.py", "--lr"], "main.py: argument --lr: expected one argument"),
    (["--", "python", "main.py", "--lr", "fast"], "main.py: argument --lr: invalid float value: 'fast'"),
    (["--", "python", "main.py", "--bach_size", "3"], "main.py has no flag --bach_size; did you mean --batch_size?"),
    (["python main.py --data_path '/x"], "line 1: the quote ' is never closed"),
    (["--", "python", "main.py", "--eval", "true"], "main.py: --eval true: it trains nothing"),
    (["--", "python", "main.py", "--lr", "-1"], "--lr -1: optimizer.lr must be greater than 0"),
    (["--", "python", "main.py", "--data_path", "a\x00b"], "the command: not YAML: the control character"),
    (["--", "torchrun", "--nproc_per_node=0", "main.py"], "the command starts no process"),
    (["--", "python", "run_with_submitit.py", "--nodes", "0"], "the command starts no process"),
    (["--from", "missing.sh"], "missing.sh cannot be read: No such file or directory"),
    (["--from", "a.sh", "--", "python", "main.py"], "the command is given twice"),
    (["missing.yaml"], "missing.yaml: cannot be read"),
])  # fmt: skip
def test_a_bad_command_is_one_message_and_exit_code_2(convrun, words, message):
    code, out, err = convrun(*words)
    assert (code, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_a_script_given_as_a_word_and_a_file_that_is_no_text(convrun, tmp_path):
    (tmp_path / "train.sh").write_bytes(b"python main.py \xff")
    assert "is a script: convrun import --from" in convrun(tmp_path / "train.sh")[2]
    code, _, err = convrun("--from", tmp_path / "train.sh")
    assert (code, "is not UTF-8 text" in err) == (2, True)


def test_importing_needs_no_torch():
    code = (
        "import sys; sys.argv = ['convrun', 'import', '--', 'torchrun', 'train.py', '--pretrained', '--aa', 'rand-m9',"
        " '--mixup', '0.8', '--reprob', '0.1', '--model', 'convnext_tiny']\n"
        "from convrun.entry import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print([m for m in ('torch', 'timm', 'torchvision', 'numpy', 'PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
