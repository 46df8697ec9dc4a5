"""Where the time of a run goes, and what would change it.

`bench` measures each stage by itself, in a process of its own (`alone`), `runs` the run as it is; `frames` reads its
trace; `model` predicts from the parts; `levers` are the settings that could move it; `session` does one after the
other; `record` is what all of it comes to, `report` and `chrome` how it is shown.
Knows the stages by their protocol, as a worker does.
"""
