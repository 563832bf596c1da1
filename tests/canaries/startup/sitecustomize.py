"""Plants a canary in each Python process that a test starts; Python imports this file at startup."""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))

from tests.canaries.registry import plant  # noqa: E402 - after the path

if "CANARY" in os.environ:
    plant(os.environ["CANARY"])
