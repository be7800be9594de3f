"""Rows as aligned columns."""

from __future__ import annotations


def table(rows: list[dict[str, str]], most_width: int) -> str:
    """Rows as aligned columns, the last one cut to the width."""
    if not rows:
        return ""
    columns = list(rows[0])
    widths = {c: max(len(c), *(len(row[c]) for row in rows)) for c in columns[:-1]}
    lines = []
    for row in [{c: c for c in columns}, *rows]:
        line = "  ".join([*(row[c].ljust(widths[c]) for c in columns[:-1]), row[columns[-1]]])
        lines.append(line if len(line) <= most_width else line[: most_width - 1] + "…")
    return "\n".join(lines)
