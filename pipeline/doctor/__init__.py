"""Can a run be had here, and what would it meet? One module for each subject, functions that take a `Question` and give
`Finding`s. Nothing is changed, and nothing is run for longer than it takes to see that it works.

`finding` is what they all speak, `examine` asks them, each in a process of its own (`alone`), so that one that crashes
or hangs is a finding like any other. What is slow to import (torch, PyAV, OpenCV) is so only for who asks for it; only
`network` imports `models`.
"""
