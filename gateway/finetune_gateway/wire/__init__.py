"""Pure translations between OpenAI's objects and the custom resources."""
