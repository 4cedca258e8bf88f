"""The report card: what the reader finds, says and refuses, measured on questions written by hand (`python -m benchmarks.report_card`)."""
