"""Background steps. Each is an `async def run_once(...) -> int` that tells how much it did."""
