"""The command line: what is asked for, whether it can be had, and how it is shown."""
