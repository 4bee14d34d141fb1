"""The names of a served Model's objects, and the port of its server."""

NAME_CHARACTERS = 35  # of the Model's name; 63 minus the UID and the rest
PORT_COMPLETIONS = 8000  # of the pods and of their Service


def serving_name(name: str, uid: str) -> str:
    """The name of a Model's Deployment, Service, and Lease.

    name, uid: of the Model. Names of Services have no dots.
    """
    return f"mdl-{name.replace('.', '-')[:NAME_CHARACTERS].rstrip('-')}-{uid[:8]}-serve"
