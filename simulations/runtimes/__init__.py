"""Many sites on one machine: in one process, under ``flwr run``, as a deployment."""
