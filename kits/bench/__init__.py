"""Measurements that anyone can repeat: one module a subject, run by `python -m kits.bench`.

Nothing imports it.
"""
