"""Run Autobahn's `wstest` under Python 2.7, for which alone it is written; unittest2 is unittest there."""

import sys
import unittest

sys.modules["unittest2"] = unittest

from autobahntestsuite import wstest  # noqa: E402

wstest.run()
