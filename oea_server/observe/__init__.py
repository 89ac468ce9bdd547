"""What a server shows of its routing: metrics, the routes under /oea, the live page."""
