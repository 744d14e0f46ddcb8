"""The alidade command: a local cluster, apply and wait, status, logs and chat."""
