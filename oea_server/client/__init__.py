"""Talking to a server: the way to it, its key, requests and chats; and a server of our own as a
child process."""
