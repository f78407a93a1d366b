"""`edgeseg bench`: networks, backends, precisions and sizes measured side by side, and what is made of the figures."""
