"""Tests: `unit/` by module, `e2e/` the whole way."""

import os

# A test process for each core: where each has a thread for each core too, they wait for one another most of the time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
