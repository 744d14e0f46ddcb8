# All images by one command, from the repository's root: docker buildx bake
# Everything below can be set by an environment variable of its name. docs/how-to/build-images.md tells more.

variable "REGISTRY" {
  # What stands before the images' names.
  default = "alidade"
}
variable "VERSION" {
  default = "0.1.0"
}
variable "REVISION" {
  # The commit.
  default = "unknown"
}
variable "CREATED" {
  # When the commit was made, not when the image is: the same commit gives the same image.
  default = "2020-01-01T00:00:00Z"
}
variable "SOURCE_DATE_EPOCH" {
  # The same in seconds.
  default = "1577836800"
}
variable "SOURCE" {
  # Where the commit can be found.
  default = "unknown"
}
variable "BASE" {
  # Python on Debian. Releases name it with its digest.
  default = "python:3.11-slim-bookworm"
}
variable "BASE_DIGEST" {
  default = "unknown"
}
variable "CUDA" {
  # CUDA's compiler, for DeepSpeed's kernels; of torch's CUDA version.
  default = "nvidia/cuda:13.0.1-devel-ubuntu22.04"
}
variable "CUDA_ARCHITECTURES" {
  # Compute capabilities that kernels are compiled for.
  default = "8.0 8.6 8.9 9.0+PTX"
}
variable "TORCH_CPU_INDEX" {
  # A package index with torch's builds for CPUs. Without one the images for CPUs carry CUDA's libraries, too.
  default = ""
}
variable "RELEASE" {
  # 1 pushes, with an inventory (SPDX) and the provenance beside each image.
  default = ""
}

group "default" {
  targets = ["operator", "trainer", "trainer-cpu", "quantizer", "eval", "eval-cpu", "serving"]
}

# What runs on a cluster without GPUs.
group "cpu" {
  targets = ["operator", "trainer-cpu", "eval-cpu", "serving"]
}

target "_common" {
  context   = "."
  platforms = ["linux/amd64"]
  args = {
    BASE              = BASE
    BASE_DIGEST       = BASE_DIGEST
    VERSION           = VERSION
    REVISION          = REVISION
    CREATED           = CREATED
    SOURCE            = SOURCE
    SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH
  }
  output = RELEASE == "" ? ["type=docker"] : ["type=registry,rewrite-timestamp=true"]
  attest = RELEASE == "" ? [] : ["type=sbom", "type=provenance,mode=max"]
}

target "operator" {
  inherits   = ["_common"]
  dockerfile = "images/operator/Dockerfile"
  tags       = ["${REGISTRY}/operator:${VERSION}"]
}

target "trainer" {
  inherits   = ["_common"]
  dockerfile = "images/trainer/Dockerfile"
  tags       = ["${REGISTRY}/trainer:${VERSION}"]
  args = {
    FLAVOUR            = "cuda"
    CUDA               = CUDA
    CUDA_ARCHITECTURES = CUDA_ARCHITECTURES
  }
}

target "trainer-cpu" {
  inherits   = ["_common"]
  dockerfile = "images/trainer/Dockerfile"
  tags       = ["${REGISTRY}/trainer:${VERSION}-cpu"]
  args = {
    FLAVOUR     = "cpu"
    TORCH_INDEX = TORCH_CPU_INDEX
  }
}

target "quantizer" {
  inherits   = ["_common"]
  dockerfile = "images/quantizer/Dockerfile"
  tags       = ["${REGISTRY}/quantizer:${VERSION}"]
  args = {
    TRAINER = "trainer"
  }
  contexts = {
    trainer = "target:trainer"
  }
}

target "eval" {
  inherits   = ["_common"]
  dockerfile = "images/eval/Dockerfile"
  tags       = ["${REGISTRY}/eval:${VERSION}"]
}

target "eval-cpu" {
  inherits   = ["_common"]
  dockerfile = "images/eval/Dockerfile"
  tags       = ["${REGISTRY}/eval:${VERSION}-cpu"]
  args = {
    TORCH_INDEX = TORCH_CPU_INDEX
  }
}

# Serves on CPUs only.
target "serving" {
  inherits   = ["_common"]
  dockerfile = "images/serving/Dockerfile"
  tags       = ["${REGISTRY}/serving:${VERSION}"]
  args = {
    TORCH_INDEX = TORCH_CPU_INDEX
  }
}
