"""`stickyproxy doctor`: read a namespace's objects and list what will break sessions, with why and the patch."""
