"""The steps of a build that `edgeseg/builder.py` puts in order."""
