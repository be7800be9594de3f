"""What `--format json` prints."""

from __future__ import annotations

import json
import re
from typing import Any

# DEL and C1 (ECMA-48), which a terminal obeys; json.dumps itself escapes what is below U+0020.
_CONTROL = re.compile("[\x7f-\x9f]")


def json_text(data: Any) -> str:
    """JSON that can be shown on a terminal: letters as they are, control characters escaped (RFC 8259, section 7)."""
    text = json.dumps(data, indent=2, ensure_ascii=False)
    return _CONTROL.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
