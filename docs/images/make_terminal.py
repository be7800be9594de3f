"""Draws docs/images/terminal.svg: real commands with their real output. Run by `make docs`."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

ROOT = Path(__file__).resolve().parents[2]
WRONG = """extends: digits_demo
optimizer: {lr: 1e-3, warmup_epochs: 5}
trainning: {epochs: 10}
"""
RIGHT = """extends: digits_demo
optimizer: {lr: 1e-3}
scheduler: {warmup_epochs: 5}
training: {epochs: 20}
"""


def show(console: Console, command: str, folder: Path) -> None:
    console.print(Text("$ ", "bold green") + Text(command, "bold"))
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", f"{command} 2>&1"], cwd=folder, env=environment, capture_output=True, text=True
    )
    for line in done.stdout.splitlines():
        console.print(styled(line), soft_wrap=False, overflow="fold")


def styled(line: str) -> Text:
    """Colours for the picture; the words are convrun's."""
    text = Text(line)
    text.highlight_regex(r"^\S+\.yaml:\d+:\d+:", "cyan")
    text.highlight_regex(r"did you mean .*|it belongs at .*", "green")
    text.highlight_regex(r"^ +\^$", "bold red")
    text.highlight_regex(r"^[a-zA-Z]+ {2,}", "cyan")
    text.highlight_regex(r"^warning", "yellow")
    return text


def main() -> None:
    with tempfile.TemporaryDirectory() as name, Path(os.devnull).open("w") as nowhere:
        folder = Path(name)
        console = Console(record=True, width=112, file=nowhere, force_terminal=True, legacy_windows=False)
        (folder / "mine.yaml").write_text(WRONG)
        show(console, "cat mine.yaml", folder)
        show(console, "convrun validate mine.yaml", folder)
        (folder / "mine.yaml").write_text(RIGHT)
        console.print()
        show(console, "cat mine.yaml", folder)
        show(console, "convrun validate mine.yaml", folder)
    # The reader's own monospaced font instead of one from the web.
    code_format = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    code_format = code_format.replace("Fira Code", "DejaVu Sans Mono, Menlo, Consolas")
    svg = console.export_svg(title="convrun", theme=MONOKAI, code_format=code_format, unique_id="terminal")
    (ROOT / "docs/images/terminal.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
