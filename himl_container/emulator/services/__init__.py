"""Azure's services, one module each: a class that is given what it needs and has ``routes()``."""
