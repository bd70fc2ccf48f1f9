"""stickyproxy: a session-affinity reverse proxy for NiceGUI apps on Kubernetes."""

__version__ = "0.1.0"
