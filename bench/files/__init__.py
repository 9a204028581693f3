"""From image files to labels: throughput and memory."""
