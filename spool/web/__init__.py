"""The HTTP side: the only place that knows aiohttp's server."""
