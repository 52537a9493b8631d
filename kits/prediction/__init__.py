"""Prediction of many scans: the inputs, the stream of cases, the outputs, and the run's report.

Commands and workflows call it.
"""
