"""Settings: the YAML files that come with the project, and how such files are read. And how a process of ours starts:
every other package imports this one for it."""

from configs import startup

startup.settle()
