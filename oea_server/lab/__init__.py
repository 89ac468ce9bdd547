"""The laboratory: benchmarks, quality, the demo. It imports the server's rooms, never the
reverse."""
