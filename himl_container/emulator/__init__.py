"""An AzureML workspace on this machine, for the unmodified AzureML SDK.

``server`` (proxy, certificates, HTTP) → ``routes`` → ``services`` (one module for each service of Azure) → ``state``
(SQLite) and blobs (Azurite). ``compute`` runs the jobs in Docker through :mod:`himl_container.launch`; ``hyperdrive``
searches; ``page`` shows runs in a browser.

Shapes of answers were read off the SDK's models, not off Azure's own traffic.
"""
