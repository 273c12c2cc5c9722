"""The trainer: a plain program that turns a job file into an adapter and a stream of events.

It knows nothing of gRPC, of databases, or of who reads its events.
"""
