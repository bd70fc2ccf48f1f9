"""Every module by itself: no sockets, no processes, no clock."""
