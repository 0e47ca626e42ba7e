"""A client of the OCI distribution specification 1.1: blobs, manifests, referrers, login; not about our images."""
