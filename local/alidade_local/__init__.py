"""A Kubernetes for one machine: API server, controllers and a process kubelet, without containers."""
