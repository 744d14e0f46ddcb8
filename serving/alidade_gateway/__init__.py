"""A served model's gateway: one address in front of its replicas, and in front of a new model beside the old."""
