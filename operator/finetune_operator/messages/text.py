"""What messages have in common: their length, and counted nouns."""

MESSAGE_CHARACTERS = 2048  # of status.message and status.error.message


def count(number: int, noun: str) -> str:
    """`1 pod`, `2 pods`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
