"""The image: what the Dockerfile copies in, and what checks that it does what is promised."""
