"""What travels between stages, and how: messages and frames, slots in shared memory, queues, order, rounds, the ledger.
Knows no stage's work, and nobody who starts or stops one."""
