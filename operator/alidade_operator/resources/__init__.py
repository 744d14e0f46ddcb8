"""Child objects: how they are rendered, and how what the cluster says of them is read."""
