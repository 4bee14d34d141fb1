// Request a completion with Node 18 or later, without any package.
// usage: BASE_URL=http://support-tone:8000/v1 node complete.mjs MODEL PROMPT
const [model, prompt] = process.argv.slice(2);
const response = await fetch(`${process.env.BASE_URL}/completions`, {
  method: "POST",
  headers: {
    Authorization: `Bearer ${process.env.API_KEY ?? "none"}`,
    "Content-Type": "application/json",
  },
  body: JSON.stringify({ model, prompt, max_tokens: 16, temperature: 0 }),
});
if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
console.log((await response.json()).choices[0].text);
