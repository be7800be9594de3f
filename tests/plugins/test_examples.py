"""What holds for every example in plugins/."""

import subprocess
import sys
from pathlib import Path

from convrun.plugins import load_plugins
from convrun.registry import registry

FOLDER = Path(__file__).parents[2] / "plugins"


def test_the_examples_import_nothing_heavy():
    code = (
        f"import sys, pathlib; from convrun.plugins import load_plugins; load_plugins(folder=pathlib.Path('{FOLDER}'));"
        "from convrun.registry import registry; assert not registry.failures, registry.failures;"
        "print(registry.searched, [m for m in ('torch', 'timm', 'numpy', 'wandb', 'PIL') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "['plugins/convnext_se.py', 'plugins/kubernetes_job.py', 'plugins/wsd.py'] []"


def test_every_key_of_an_example_is_described():
    load_plugins(folder=FOLDER)
    examples = [c for c in registry.all() if str(FOLDER) in c.source]
    assert sorted(f"{c.kind}/{c.name}" for c in examples) == [
        "launcher/kubernetes",
        "model/convnext_se",
        "scheduler/wsd",
    ]
    assert [f"{c.name}.{key.name}" for c in examples for key in c.own_keys if not key.meaning] == []
    assert all(c.summary.endswith(".") for c in examples)
