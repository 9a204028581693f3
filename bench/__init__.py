"""Throughput, latency and parity of every backend."""
