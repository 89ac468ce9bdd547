"""The demo: vanilla and OEA side by side on one server, its models, and how they are trained."""
