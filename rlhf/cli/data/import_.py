"""`rlhf data import`."""

from __future__ import annotations

from rlhf.cli.parser import OptionFunction, option_command


def _load() -> OptionFunction:
    from rlhf.curate.formats.importing import ImportOptions, run

    return run, (ImportOptions,)


COMMAND = option_command(
    "import",
    "chat logs and public formats into one JSONL file",
    _load,
    description="Reads chat exports (KakaoTalk, LINE, Discord, Telegram, Slack, Instagram), fine-tuning files and "
    "tables, masks personal information and writes rows that every stage reads, with a manifest beside them.",
    epilog="examples:\n"
    "  rlhf data import --in chat.txt --out chat.jsonl --me 민수\n"
    "  rlhf data import --in a.txt b.txt --out chat.jsonl --me 민수 --me 회원님 --system '너는 민수야.'\n"
    "  rlhf data import --in chat.csv --out pairs.jsonl --me 민수 --style completion --stop ' END'\n"
    "  rlhf data import --in table.csv --out table.jsonl --columns prompt=질문,response=답변",
)
