"""`rlhf data label`: reads rows, serves a page on which people rank the answers, writes the labels."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.config.flag_values import parse_names
from rlhf.config.flags import flag
from rlhf.curate.label.access import PageAccess
from rlhf.curate.label.export import Merge, export_labels
from rlhf.curate.label.items import read_items
from rlhf.curate.label.store import OWNER, LabelStore
from rlhf.curate.output import Output
from rlhf.errors import ConfigError, DataError, require_packages
from rlhf.web.guard import LOOPBACK, allowed_hosts
from rlhf.web.server import listen, serve, url_of

if TYPE_CHECKING:
    from fastapi import FastAPI


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """The options of the command; with no `people`, anyone at this machine enters a name."""

    rows: str = flag(..., "output of `rlhf data sample`, or any ranking file", name="--in", metavar="FILE")
    out: Path = flag(..., "ranking file to write (JSONL)", metavar="FILE")
    people: tuple[str, ...] = flag(
        (),
        "one link per person, e.g. 지수,민호; without it people type their name",
        name="--annotators",
        metavar="NAMES",
        parse=parse_names,
    )
    overlap: float = flag(
        0.2,
        "share of the rows that everyone gets, to measure agreement; each other row goes to one person",
        metavar="SHARE",
    )
    merge: Merge = flag("majority", "one row by pairwise majority, or one row per person")
    seed: int = flag(17, "seed of the order of rows and of answers")
    host: str = flag("127.0.0.1", "address to listen on; any but this machine's own needs --annotators", metavar="HOST")
    port: int = flag(7861, "port; 0 takes a free one")

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= 1:
            raise ConfigError(f"--overlap {self.overlap}", expected="a share from 0 to 1")
        if len(set(self.people)) != len(self.people):
            raise ConfigError(f"--annotators {','.join(self.people)}", expected="names that differ")
        if self.host not in LOOPBACK and not self.people:
            raise ConfigError(
                f"--host {self.host} opens the page to other machines, where anyone could label",
                fix="name the people, each of whom then gets a link: --annotators 지수,민호",
            )


def require_ui() -> None:
    """Raises ConfigError, naming the extra, when a package the page needs is missing."""
    require_packages("fastapi", "uvicorn", "krippendorff", extra="ui", needed_by="labelling")


class Labelling:
    """The rows, the store and the output of one `rlhf data label`."""

    def __init__(self, options: LabelOptions) -> None:
        require_ui()
        self.options = options
        self._exporting = threading.Lock()
        self.items, self.problems = read_items(options.rows)
        if options.out.is_dir() or (options.out.exists() and options.out.samefile(options.rows)):
            raise DataError("is a folder, or the input", where=str(options.out), fix="choose another --out")
        self.store = LabelStore(options.out.with_name(f"{options.out.name}.sqlite"), seed=options.seed)
        self.store.add_items(self.items, overlap=options.overlap)

    def export(self) -> Output:
        """Writes the labels; DataError when there are none."""
        options = self.options
        with self._exporting:
            return export_labels(
                self.store,
                options.out,
                inputs=[options.rows],
                merge=options.merge,
                options={"overlap": options.overlap, "seed": options.seed},
                unusable=self.problems,
            )

    def access(self) -> PageAccess:
        """The links' tokens, the same after a restart."""
        people = {self.store.token_of(name): name for name in self.options.people}
        return PageAccess(self.store.token_of(OWNER), people)

    def app(self, access: PageAccess) -> FastAPI:
        """The application; on loopback it answers only to this machine's names."""
        from rlhf.curate.label.app import build_app

        return build_app(self.store, access, export=self.export, hosts=allowed_hosts(self.options.host))

    def run(self) -> None:
        """Serves until Ctrl-C or SIGTERM, then writes the labels."""
        options, access = self.options, self.access()
        with listen(options.host, options.port) as listener:
            port = listener.getsockname()[1]
            sys.stderr.write("\n".join(self.greeting(access, port)) + "\n")
            serve(self.app(access), listener)
        if any(judgement.verdict != "skip" for judgement in self.store.judgements()):
            sys.stderr.write(f"{self.export().summary()}\n")
        else:
            sys.stderr.write(f"nothing was labelled, so {options.out} is not written\n")

    def greeting(self, access: PageAccess, port: int) -> Iterator[str]:
        """The lines for the terminal: the rows, and one link per person."""
        options, done = self.options, len(self.store.judgements())
        yield f"{len(self.items)} rows from {options.rows}; {done} judgements so far in {self.store.path}"
        for problem in self.problems[:5]:
            yield f"  skipped: {problem}"
        if len(self.problems) > 5:
            yield f"  skipped: {len(self.problems) - 5} more"
        root = url_of(options.host, port)
        links: Sequence[tuple[str, str]] = [(name, f"{root}/#token={token}") for token, name in access.people.items()]
        for name, link in links or [("label", f"{root}/")]:
            yield f"  {name}\t{link}"
        yield f"  agreement (for you only)\t{root}/agreement#token={access.owner_token}"
        yield f"Ctrl-C stops and writes {options.out}"
