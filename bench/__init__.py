"""Measurements: rates and ratios in one run.  They print, and assert nothing."""
