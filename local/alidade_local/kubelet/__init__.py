"""The process kubelet: it runs the containers of pods as processes of this machine."""
