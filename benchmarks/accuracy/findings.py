"""What somebody who read a study's results wrote about them, by the name of its page; nothing before there are any."""

from __future__ import annotations

FINDINGS: dict[str, str] = {}
