"""A plugin of pytest for Flask's tests."""

import _pytest.monkeypatch

# Flask's conftest.py uses the name of an older pytest.
_pytest.monkeypatch.notset = _pytest.monkeypatch.NOTSET
