"""Threads that wait asleep. Imported before torch, because OpenMP reads its settings once, when it is loaded.

By default a thread of a matrix product that is done spins until the others are. Where other processes want the cores too, it takes them
from the very thread that it waits for: with two threads on two busy cores a token took ten times as long as with one. Asleep, waking costs
a few microseconds a product, which even a quiet machine hardly notices.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
