"""`python -m kits.report image=... prediction=... [truth=...] output=DIR`: a page of cases.

The images are found as kits.predict finds its input, so what was segmented can be looked at, whatever its format.
`data=kits21` or `data=kits23` where the truth is a tree of that set.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from kits.config.command import command

if TYPE_CHECKING:
    from kits.config.schema.commands import Report


@command("report")
def main(options: "Report") -> None:
    """Write index.html, which shows every case and needs nothing else, or with format=png pictures."""
    from kits.data.index import case_ids
    from kits.reporting.cases import find_files, write_pictures, write_report

    data, output, workers = options.data, Path(options.output), options.workers
    truth = None if options.truth is None else Path(options.truth)
    named = case_ids(options.cases)
    cases = find_files(Path(options.image), Path(options.prediction), truth, named, label_name=data.label_name)
    if options.format == "png":
        write_pictures(cases, output, ids=data.ids, workers=workers)
        print(f"pictures of {len(cases)} case(s): {output}")
    else:
        page = write_report(cases, output, ids=data.ids, workers=workers)
        print(f"{len(cases)} case(s), {page.stat().st_size / 1e6:.1f} MB: {page}")


if __name__ == "__main__":
    main()
