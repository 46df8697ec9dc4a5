"""The live page, its pictures and the run's figures, over HTTP: a process of its own that asks the run by its socket.

guard: who may ask · asking: what the run says · pictures: who looks at what · figures: for Prometheus · server: all of
it at an address · static: the page. None of it sees a frame that nobody looks at.
"""
