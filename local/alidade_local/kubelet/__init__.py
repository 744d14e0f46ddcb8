"""The process kubelet: it runs the containers of pods as processes of this machine.

What it does not do, because it takes containers: limits of processor time are counted by the scheduler and enforced by
nobody, those of memory by looking at it once a second; mounts are links below the pod's folder, so read-only is not
enforced and a path that a program has built in is the machine's; processes run as the user who started the cluster;
every port is on the machine's loopback network, and a program that listens on all addresses takes its port from all
pods. A subPath of a ConfigMap or Secret is updated like the rest of the volume, where a kubelet leaves it as it was.
"""
