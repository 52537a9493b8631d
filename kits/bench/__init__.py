"""Measurements that anyone can repeat, run by `python -m kits.bench`; nothing imports it."""
