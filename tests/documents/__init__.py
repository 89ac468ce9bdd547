"""Every command of every document is run by a test, or marked as not run, with the reason."""
