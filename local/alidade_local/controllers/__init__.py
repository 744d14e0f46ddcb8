"""The controllers of the local cluster, with the semantics of the originals."""
