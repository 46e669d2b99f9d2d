"""asyncq: asynchronous deep reinforcement learning on one machine."""
