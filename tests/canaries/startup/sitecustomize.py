"""Plants a canary in each Python process that a test starts: Python imports this file first."""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))

from tests.canaries.registry import plant

if "CANARY" in os.environ:
    plant(os.environ["CANARY"])
