"""Which of our codes stand for which of the numbers that Dual-write gives for maps: DIPV1000 to DIPV1031."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

NUMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "connection": ("DIPV1000", "DIPV1005"),
    "company_differs": ("DIPV1002",),
    "company_mismatch": ("DIPV1002",),
    "company_missing": ("DIPV1002",),
    "no_key": ("DIPV1003",),
    "key_unknown": ("DIPV1003",),
    "key_one_way": ("DIPV1004",),
    "mandatory_unmapped": ("DIPV1010",),
    "read_only_target": ("DIPV1011",),
    "bad_filter": ("DIPV1012",),
    "unread_filter": ("DIPV1012",),
    "unknown_filter_column": ("DIPV1012",),
    "key_unmapped": ("DIPV1014",),
    "lookup_key_unmapped": ("DIPV1015", "DIPV1027", "DIPV1028"),
    "unknown_table": ("DIPV1018", "DIPV1020"),
    "no_source": ("DIPV1021", "DIPV1024"),
    "bad_field_mapping": ("DIPV1021", "DIPV1024"),
    "unknown_column": ("DIPV1022", "DIPV1025"),
    "unknown_lookup": ("DIPV1022", "DIPV1025"),
    "source_twice": ("DIPV1023",),
    "duplicate_target": ("DIPV1026", "DIPV1029"),
    "incompatible_types": ("DIPV1030",),
    "may_lose_data": ("DIPV1030",),
    "mandatory_may_be_null": ("DIPV1031",),
    "no_such_company": ("DIPV1008", "DIPV1016", "DIPV1017"),
    "sqlite_capture": ("DIPV1019",),
    "pg_unlogged": ("DIPV1019",),
}
"""Where one of our codes covers several numbers, the message tells which case it is."""

WITHOUT: Final[Mapping[str, str]] = {
    "DIPV1001": "An unknown error of the service that examines maps. There is none here; an error of dualwrite "
    "itself says so, and asks to be reported.",
    "DIPV1006": "As DIPV1001.",
    "DIPV1007": "A task names an environment that its connection set does not have. Both environments of a link stand "
    "in its dualwrite.yaml, and `missing_key` tells where one is left out.",
    "DIPV1009": "Not published.",
    "DIPV1013": "Not published.",
}
"""Numbers for which there is no code, and why."""
