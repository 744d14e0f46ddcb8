"""The resource types of Alidade, the job contract between operator and trainer, condition reasons and metric names."""

GROUP = "alidade.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
