"""A load generator for inference servers: open and closed loops, streamed answers, latency from the arrival on."""
