"""Prediction of many scans: what there is to segment, the stream of cases, what is written, and the report of the run."""
