# SPDX-License-Identifier: Apache-2.0
"""One finished training run, which the tests of the tools and of prediction share."""

import pytest

from tests.tools import runs


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A complete run of train_net.py on tiny shapes; read only."""
    return runs.train_as_users_do(tmp_path_factory.mktemp("trained"))
