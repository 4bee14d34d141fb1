"""The OpenAPI document of the gateway: its endpoints, what they accept, and what they answer."""
