"""What the coordinator's operator types: certificates, server, runs."""
