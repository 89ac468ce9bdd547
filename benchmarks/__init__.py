"""Measurements that are no command of `oea-server`."""
