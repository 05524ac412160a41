"""What people who write a connector run: the examiner of its promises, and the example system that it works on."""

import pytest

pytest.register_assert_rewrite(
    "dualwrite.testing.contract_commit",
    "dualwrite.testing.contract_feed",
    "dualwrite.testing.contract_read",
    "dualwrite.testing.contract_write",
    "dualwrite.testing.example",
)
