"""The command, the clients and the demo, against a server that speaks the real protocol."""
