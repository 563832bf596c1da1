"""AppSuite: every law of requests, to be inherited by the test of a framework's adapter.

What lives here: the class that is inherited. It is made of laws (``applaws.py``, ``appends.py``,
``apptroubles.py``, ``appoverlap.py``, ``lifelaws.py``) and of what an adapter says of itself
(``appkit.py``), which must not be here.
"""

from __future__ import annotations

from sojourn.testing.appends import EndLaws
from sojourn.testing.applaws import RequestLaws
from sojourn.testing.appoverlap import OverlapLaws
from sojourn.testing.apptroubles import TroubleLaws
from sojourn.testing.lifelaws import LifeLaws


class AppSuite(RequestLaws, EndLaws, TroubleLaws, OverlapLaws, LifeLaws):
    """The laws A1 to A20 for one framework, or for one application's own set-up.

    Inherit it, and say how an application is built from handlers and how sessions are taken away::

        class TestMyFramework(AppSuite):
            def build(self, handlers, **options):
                app = MyFramework({path: adapt(handler) for path, handler in handlers.items()})
                return app, sojourn.install(app, **options)

            def uninstall(self, app, sessions):
                sojourn.uninstall(app)
    """
