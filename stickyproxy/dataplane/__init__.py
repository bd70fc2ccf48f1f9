"""Bytes: downstream connections, upstream pools, exchanges and tunnels, on asyncio.Protocol."""
