"""Why changes are parked: what each code means, and what to do about it.  The codes are stable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

RETRY: Final = "then retry it"
CODES: Final[Mapping[str, tuple[str, str]]] = {
    "ambiguous": (
        "Several records of the target hold the key, or the key of a lookup; dualwrite never picks one.",
        f"remove or rename all but one of them, {RETRY}",
    ),
    "behind": (
        "The change waits behind another parked record: its key was, or becomes, the key of that one.",
        "settle the record that it waits for; this one follows by itself",
    ),
    "bypassed": (
        "The target's record is not what it should be, and no captured change says why: something wrote past the "
        "triggers, or restored the file.",
        "discard the change, then make the record agree with `dualwrite verify --repair left` or `right`",
    ),
    "conflict": (
        "Both sides changed a column whose policy is `manual`.",
        "decide it: `dualwrite conflicts list --open`, then `dualwrite conflicts resolve ID left` or `right`",
    ),
    "digits_lost": (
        "A number has more decimal digits than the target's column keeps.",
        f"shorten the number, or say `round: true` for the column, {RETRY}",
    ),
    "duplicate_key": (
        "Several records of the source hold the same key; dualwrite never picks one.",
        f"remove or rename all but one of them, {RETRY}",
    ),
    "empty_key": ("Every column of the key is empty.", f"give the record a key, {RETRY}"),
    "loop": (
        "The record keeps changing on both sides: what is carried to one, something there changes back, without end. "
        "Mostly two triggers, or an application, that write the same column in ways of their own.",
        "let one side alone write the column (`>` or `<`), or map it so that both spellings count as one (`upper`, "
        f"`trim`), or switch off what changes it back; {RETRY}",
    ),
    "many_deletes": (
        "More records were deleted within a minute than `limits.deletes` allows, so the delete waits for a person.",
        "if it was meant, let it through: `dualwrite parked retry --code many_deletes`; if not: `dualwrite parked "
        "discard --code many_deletes`, then bring the records back with `dualwrite verify --repair SIDE`, naming the "
        "side that still has them",
    ),
    "missing_parent": (
        "A lookup names a record that is not there.",
        "nothing: it goes through by itself when that record arrives, from either side; else correct the lookup",
    ),
    "not_a_value": (
        "A value is none that the target's column can hold, such as a word in a column of numbers.",
        f"correct the value, or map it with `values:`, {RETRY}",
    ),
    "other": (
        "The target refused the row for a reason of its own, for example by one of its triggers.",
        f"do what its words ask for, {RETRY}",
    ),
    "out_of_range": (
        "A number or a moment is too large for the target's column.",
        f"correct the value, or widen the column, {RETRY}",
    ),
    "readonly": (
        "The change writes a column that cannot be written (generated or computed).",
        f"carry the column out of that side only (`>` or `<`), {RETRY}",
    ),
    "reference": (
        "A foreign key of the target forbids the change: a record that it needs is missing, or others refer to it.",
        f"add the missing record, or remove what refers to it, {RETRY}",
    ),
    "rename": (
        "The key was changed on one side while the other side edited the record.",
        "look at both records, discard the change, then run `dualwrite verify --repair left` or `right`",
    ),
    "required": (
        "A mandatory column of the target would be empty.",
        f"fill the value in, or say `default: VALUE` for the column, {RETRY}",
    ),
    "set_aside": (
        "The change was queued while its map was paused, and the map was resumed with `--skip preserve`.",
        "let it through when it suits: `dualwrite parked retry --code set_aside`",
    ),
    "time_lost": (
        "A moment with a time of day does not fit into a column of dates.",
        f"take off the time of day, or say `round: true` for the column, {RETRY}",
    ),
    "too_long": (
        "A text is longer than the target's column takes.",
        f"shorten it, or say `truncate: true` for the column, {RETRY}",
    ),
    "unique": (
        "Another record of the target holds a value that must be unique.",
        f"change one of the two records, {RETRY}",
    ),
    "unresolved_key": (
        "A key goes through a lookup whose record cannot be found.",
        f"correct the lookup, or add that record, {RETRY}",
    ),
    "value": (
        "The target refused a value: by its type, its length or a check constraint.",
        f"correct the value, {RETRY}",
    ),
    "not_computed": (
        "An `expr:` of the map fails on the record: it divides by zero, or a text is no number.",
        f"correct the record's values, or let the `expr:` take care of them with `if(…)`, {RETRY}",
    ),
    "value_not_mapped": (
        "A value is not listed in the column's value map.",
        f"add it to `values:`, or say with `else:` what happens to such values, {RETRY}",
    ),
}
"""Code → what it means, what to do."""


def remedy_of(code: str) -> str:
    """What to do about a parked change; empty for a code of a connector that is not ours."""
    return CODES[code][1] if code in CODES else ""
