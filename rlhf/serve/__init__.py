"""Models behind an HTTP interface that clients of OpenAI's service know: chat, files, fine-tuning jobs."""
