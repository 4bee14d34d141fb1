"""Request a completion with the `openai` package: only the base URL differs from OpenAI's API.

usage: BASE_URL=http://support-tone:8000/v1 python complete.py MODEL PROMPT
"""

import os
import sys

from openai import OpenAI

model, prompt = sys.argv[1:]
client = OpenAI(base_url=os.environ["BASE_URL"], api_key=os.environ.get("API_KEY", "none"))
answer = client.completions.create(model=model, prompt=prompt, max_tokens=16, temperature=0)
print(answer.choices[0].text)
