"""Health and metrics, by aiohttp on a port of its own."""
