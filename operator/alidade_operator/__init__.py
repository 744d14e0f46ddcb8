"""The Alidade operator: watches the resources, plans, applies, reports."""
