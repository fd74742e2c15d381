"""The real worker in a world of its own: virtual time, a fake Redis, faults decided by a seed.

`loop` is an event loop without waiting, in which processes can be frozen and killed; `network` the
way to the fake server, which delays, loses and executes late; `plan` what happens by a seed, and
how a plan that breaks a promise is made small; `world` runs a plan and judges what it left.

A seed is replayed with ``python -m tests.simulation SEED``.
"""
