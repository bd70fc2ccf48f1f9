"""`stickyproxy verify` against real NiceGUI replicas behind real proxies, sound ones and broken ones."""
