"""Integration tests: the data plane and the real command on real sockets of the loopback device."""
