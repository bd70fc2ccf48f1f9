"""The real command, real NiceGUI processes, real Chromium."""
