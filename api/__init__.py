"""Every door into the sidecar: HTTP, command line and client."""
