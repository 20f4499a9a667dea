"""Names that harm whoever reads them in a terminal, and whether a text does."""

from __future__ import annotations

import unicodedata

# Turns the line around, hides a part of it, breaks it, is not seen.
HARMFUL = ["pay\u202etset", "a\u200bb", "c\u2066d", "e\u2028f", "g\u3164h", "i\u00a0j", "k\u00adl", "m\ufe0fn"]


def is_harmless(text: str) -> bool:
    """Whether no character of *text* but the end of a line moves a cursor, turns or breaks a line, or is not seen."""
    kinds = {unicodedata.category(character) for character in text if character != "\n"}
    return not kinds & {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"} and not set(text) & set("\u3164\u00a0\ufe0f")
