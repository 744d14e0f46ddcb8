"""A Kubernetes API server for one machine: kubectl, helm and kopf speak to it as to the real one."""
