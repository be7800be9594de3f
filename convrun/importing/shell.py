"""Shell text -> simple commands: words, quotes, continuations, comments and the variables a script sets itself.

Not a shell: what only running it could tell (`$(...)`, loops, here-documents) is refused, and a variable that the text
does not set becomes `${env:NAME}`, which a recipe understands.
"""

from __future__ import annotations

import re

from convrun.errors import UsageError

_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::?-([^}$]*))?\}|([A-Za-z_]\w*))")
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_UNKNOWABLE = {
    "`": "a command in backticks",
    "$(": "a command in $(...)",
    "<<": "a here-document",
    **{f"${c}": f"the script's argument ${c}" for c in "@*#?0123456789"},
}


def simple_commands(text: str) -> list[list[str]]:
    """The commands of a shell text, each as its words; assignments that stand alone are filled in, not listed.

    A line that starts with `-` goes on with the command before it, as if that line ended with a backslash: the
    released TRAINING.md has such a line.

    Raises:
        UsageError: an unclosed quote, or text that only a shell could evaluate.
    """
    return _Reader(text.replace("\r\n", "\n")).commands()


def assignment(word: str) -> tuple[str, str] | None:
    """Name and value of `NAME=VALUE`."""
    match = _ASSIGNMENT.fullmatch(word)
    return (match[1], match[2]) if match else None


class _Reader:
    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.variables: dict[str, str] = {}
        self.found: list[list[str]] = []
        self.words: list[str] = []
        self.word: str | None = None

    def commands(self) -> list[list[str]]:
        while self.at < len(self.text):
            self.step()
        self.end_command()
        return self.found

    def step(self) -> None:
        char = self.text[self.at]
        self.check_knowable()
        if char == "\\":
            self.escape()
        elif char in "'\"":
            self.quoted(char)
        elif char == "$":
            self.append(self.variable())
        elif char == "#" and self.word is None:
            self.skip_line()
        elif char in "<>" or self.text.startswith("&>", self.at):
            self.redirection()
        elif char in " \t":
            self.end_word()
            self.at += 1
        elif char in "\n;|&()":
            self.end_line() if char == "\n" else self.end_command()
            self.at += 1
        else:
            self.append(char)
            self.at += 1

    def check_knowable(self) -> None:
        for start, what in _UNKNOWABLE.items():
            if self.text.startswith(start, self.at):
                raise UsageError(f"line {self.line()}: {what} cannot be evaluated; write its value")

    def line(self) -> int:
        return self.text.count("\n", 0, self.at) + 1

    def append(self, text: str) -> None:
        self.word = (self.word or "") + text

    def end_word(self) -> None:
        if self.word is not None:
            self.words.append(self.word)
        self.word = None

    def end_line(self) -> None:
        self.end_word()
        if not self.text[self.at :].lstrip().startswith("-"):
            self.end_command()

    def end_command(self) -> None:
        self.end_word()
        words = self.words[1:] if self.words[:1] in (["export"], ["$"]) else self.words
        assigned = [assignment(word) for word in words]
        if words and all(assigned):
            self.variables.update(pair for pair in assigned if pair)
        elif words:
            self.found.append(words)
        self.words = []

    def escape(self) -> None:
        """A backslash; before the end of a line, blanks between forgiven, it joins the lines."""
        if joined := re.compile(r"\\[ \t]*(\n|$)").match(self.text, self.at):
            self.end_word()
            self.at = joined.end()
        else:
            self.append(self.text[self.at + 1 : self.at + 2])
            self.at += 2

    def quoted(self, quote: str) -> None:
        begin = self.line()
        self.at += 1
        self.append("")
        while (char := self.text[self.at : self.at + 1]) != quote:
            if not char:
                raise UsageError(f"line {begin}: the quote {quote} is never closed")
            if quote == '"':
                self.check_knowable()
            if quote == '"' and char == "$":
                self.append(self.variable())
            elif quote == '"' and char == "\\" and self.text[self.at + 1 : self.at + 2] in ('"', "\\", "$", "\n"):
                self.append(self.text[self.at + 1].replace("\n", ""))
                self.at += 2
            else:
                self.append(char)
                self.at += 1
        self.at += 1

    def variable(self) -> str:
        match = _VARIABLE.match(self.text, self.at)
        if not match:
            self.at += 1
            return "$"
        self.at = match.end()
        name, default = match[1] or match[3], match[2]
        if name in self.variables:
            return self.variables[name]
        return f"${{env:{name}}}" if default is None else f"${{env:{name}:{default}}}"

    def skip_line(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end

    def redirection(self) -> None:
        """Skips `> file`, `2>&1` and the like, which do not affect the training."""
        if self.word is not None and self.word.isdigit():
            self.word = None
        self.end_word()
        match = re.compile(r"&?[<>]+[&|]?[ \t]*[^\s;|&()]*").match(self.text, self.at)
        assert match is not None
        self.at = match.end()
