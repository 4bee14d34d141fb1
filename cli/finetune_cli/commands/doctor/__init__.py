"""What a person needs to fine-tune here, looked at piece by piece; each with its remedy."""
