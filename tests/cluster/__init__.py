"""Tests on a Ray cluster. They are a package so that the cluster, a fixture of the package, ends with the last of them."""
