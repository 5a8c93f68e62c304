"""`rlhf data export`."""

from __future__ import annotations

from rlhf.cli.parser import OptionFunction, option_command


def _load() -> OptionFunction:
    from rlhf.curate.formats.exporting import RowExportOptions, run

    return run, (RowExportOptions,)


COMMAND = option_command(
    "export",
    "rows for other tools: openai, messages, alpaca, hh",
    _load,
    description="Writes rows for other tools:\n"
    "  openai    input of hosted fine-tuning: messages, or input with a preferred answer for rankings\n"
    "  messages  {messages: [{role, content}]}\n"
    "  alpaca    {instruction, input, output}; one question and one answer\n"
    "  hh        {chosen, rejected}: transcripts with Human: and Assistant:, one row per pair of answers",
    epilog="example: rlhf data export --format openai --in chat.jsonl --out upload.jsonl",
)
