import pytest

from headsr.simulate.anatomy import build_anatomy


@pytest.fixture(scope="package")
def anatomy():
    return build_anatomy()
