import pytest

from convrun.errors import UsageError
from convrun.importing.launch import read_command, training_command
from convrun.importing.shell import simple_commands


@pytest.mark.parametrize(("text", "script", "processes"), [
    ("python main.py", "main.py", 1),
    ("python3.11 -u -W ignore /code/ConvNeXt/main.py", "main.py", 1),
    ("CUDA_VISIBLE_DEVICES=0,1 OMP_NUM_THREADS=1 python main.py", "main.py", 1),
    ("WORLD_SIZE=4 RANK=0 python main.py", "main.py", 4),
    ("nohup python main.py", "main.py", 1),
    ("./main.py", "main.py", 1),
    ("python -m main", "main.py", 1),
    ("python -m torch.distributed.launch --nproc_per_node=8 main.py", "main.py", 8),
    ("python -m torch.distributed.launch --nproc_per_node 2 --use_env --master_port 1 main.py", "main.py", 2),
    ("python -m torch.distributed.run --nnodes=2 --nproc-per-node=4 main.py", "main.py", 8),
    ("torchrun --standalone --nproc_per_node=4 train.py", "train.py", 4),
    ("torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint h:1 main.py", "main.py", 16),
    ("torchrun main.py", "main.py", 1),
    ("torchrun --nproc_per_node=4 -m main", "main.py", 4),
    ("torchrun --nproc_per_node=gpu main.py", "main.py", None),
    ("torchrun --nnodes=1:4 --nproc_per_node=8 main.py", "main.py", None),
    ("python run_with_submitit.py", "run_with_submitit.py", None),
    ("./distributed_train.sh 4 /data", "train.py", 4),
    ("bash distributed_train.sh 4 /data", "train.py", 4),
    ("srun -N 2 --ntasks-per-node=8 --gres=gpu:8 python main.py", "main.py", 16),
    ("srun -n 3 python main.py", "main.py", 3),
])  # fmt: skip
def test_script_and_processes(text, script, processes):
    command = training_command(simple_commands(f"{text} --model convnext_tiny"))
    assert (command.script, command.processes) == (script, processes)
    assert command.arguments[-2:] == ("--model", "convnext_tiny")


def test_other_commands_of_a_script_are_passed_over():
    text = "set -e\ncd /code\nexport N=2\nsource env/bin/activate\ntorchrun --nproc_per_node=$N main.py --epochs 3\nls"
    command = training_command(simple_commands(text))
    assert (command.processes, command.arguments) == (2, ("--epochs", "3"))


@pytest.mark.parametrize(("text", "message"), [
    ("", "there is no command"),
    ("X=1", "there is no command"),
    ("ls -l", "'ls' is not a training command"),
    ("python", "python is given no script"),
    ("python -c pass", "python -c runs no script"),
    ("python main_finetune.py", "the script 'main_finetune.py' is unknown"),
    ("python trian.py", "did you mean train.py?"),
    ("torchrun --nproc_per_node=8", "is given no script"),
    ("torchrun --nproc_per_nod main.py --x", "is given no script|unknown"),
    ("torchrun --nprocs=8 main.py", "has no flag --nprocs"),
    ("accelerate launch main.py", "'accelerate' is not a training command"),
    ("./distributed_train.sh /data", "takes the number of processes first"),
    ("python main.py\npython train.py", "2 training commands; import one at a time"),
])  # fmt: skip
def test_what_is_no_training_command_is_told_so(text, message):
    with pytest.raises(UsageError, match=message):
        training_command(simple_commands(text))


def test_words_that_a_shell_has_split_are_taken_as_they_are():
    command = read_command(["python", "main.py", "--data_path", "/with space/$x"])
    assert command.arguments == ("--data_path", "/with space/$x")
