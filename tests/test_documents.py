"""Every command the documents show is run, and its output must be what they show. `make docs` writes it anew.

In a block marked `console`, lines that start with `$ ` are commands. Those that take no time are run, in a folder
that holds the checkout's recipes and plugins; `$ cat FILE` makes the file, `$ echo $?` the exit code expected. A line
`...` stands for lines left out.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
WITH_COMMANDS = [document for document in DOCUMENTS if "```console" in document.read_text(encoding="utf-8")]
QUICK = re.compile(r"convrun (validate|list|describe|show|copy|schema)\b")
BLOCK = re.compile(r"(?<=```console\n).*?(?=```)", re.DOTALL)


def steps_in(block: str) -> list[tuple[str, list[str]]]:
    """(command, lines shown below it) of a console block."""
    steps: list[tuple[str, list[str]]] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], []))
        else:
            steps[-1][1].append(line)
    return steps


def make_folder(folder: Path) -> None:
    for name in ("recipes", "plugins"):
        (folder / name).symlink_to(ROOT / name)


def run(command: str, folder: Path) -> tuple[int, list[str]]:
    """Runs a command as a user with the environment activated would; paths are shown from the checkout."""
    kept = {key: value for key, value in os.environ.items() if key not in ("IMAGENET_DIR", "COLUMNS")}
    environment = kept | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    return done.returncode, [line.rstrip() for line in done.stdout.replace(f"{ROOT}/", "").splitlines()]


def elided(lines: list[str], shown: list[str]) -> list[str]:
    """The lines, with those left out that `shown` leaves out by a line `...`."""
    if "..." not in shown:
        return lines
    head = shown.index("...")
    tail = len(shown) - head - 1
    return [*lines[:head], "...", *(lines[-tail:] if tail else [])]


def played(document: Path, folder: Path, text: str) -> str:
    """The document with the real output of its quick commands in place of what it shows."""

    def play(match: re.Match[str]) -> str:
        written: list[str] = []
        steps = steps_in(match[0])
        code = 0
        for (command, shown), (following, _) in zip(steps, [*steps[1:], ("", [])], strict=True):
            written.append(f"$ {command}")
            if command.startswith("cat "):
                (folder / command[4:]).write_text("\n".join(shown) + "\n", encoding="utf-8")
            elif QUICK.match(command):
                code, lines = run(command, folder)
                assert code == 0 or following == "echo $?", f"{document.name}: {command} ends with {code}: {lines}"
                shown = elided(lines, shown)
            elif command == "echo $?":
                shown = [str(code)]
            written += shown
        return "".join(f"{line}\n" for line in written)

    return BLOCK.sub(play, text)


@pytest.mark.parametrize("document", WITH_COMMANDS, ids=lambda path: path.stem)
def test_commands_do_what_the_document_shows(document, tmp_path):
    make_folder(tmp_path)
    text = document.read_text(encoding="utf-8")
    assert played(document, tmp_path, text).splitlines() == text.splitlines()  # differs? `make docs` writes it anew


def test_the_documents_show_commands():
    commands = [c for d in WITH_COMMANDS for b in BLOCK.findall(d.read_text()) for c, _ in steps_in(b)]
    assert len([command for command in commands if QUICK.match(command)]) >= 12


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_links_inside_the_project_lead_somewhere(document):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    assert [link for link in links if not (document.parent / link).exists()] == []


def refresh() -> None:
    """Writes the real output into every document."""
    for document in WITH_COMMANDS:
        folder = Path(tempfile.mkdtemp())
        try:
            make_folder(folder)
            text = document.read_text(encoding="utf-8")
            document.write_text(played(document, folder, text), encoding="utf-8")
        finally:
            shutil.rmtree(folder)


if __name__ == "__main__":
    refresh()
