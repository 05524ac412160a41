"""The languages of filters: one expression tree, read from either and written in either."""

from __future__ import annotations

from typing import Final, TypeAlias

from dualwrite.expression import Expression, FilterError
from dualwrite.mapping import xpp
from dualwrite.mapping.odata_text import print_odata
from dualwrite.mapping.tablemap import Unread, Written

LANGUAGES: Final = ("odata", "xpp")
"""The languages of filters that name theirs."""
Filter: TypeAlias = Expression | Written | Unread


def read_odata(text: str) -> Expression:
    """A condition in OData; raises FilterError.  Its grammar is made when the first one is read: that takes a while."""
    from dualwrite.mapping.odata import parse

    return parse(text)


def read_filter(language: str, text: str) -> Filter:
    """A filter in one of the languages; kept as it stands in X++, and where it cannot be read."""
    try:
        return read_odata(text) if language == "odata" else Written(language, text, xpp.parse(text))
    except FilterError as error:
        return Unread(language, text, str(error))


def filter_in(language: str, found: Filter) -> str:
    """A filter in one of the languages, as it was written if it was in that one; raises FilterError."""
    if isinstance(found, Written | Unread) and found.language == language:
        return found.text
    if isinstance(found, Unread):
        raise FilterError(f"{found.text} cannot be read: {found.reason}")
    expression = found.expression if isinstance(found, Written) else found
    return print_odata(expression) if language == "odata" else xpp.show(expression)
