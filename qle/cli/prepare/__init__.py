"""The commands below `qle prepare`: annotations of datasets, words, made-up videos."""
