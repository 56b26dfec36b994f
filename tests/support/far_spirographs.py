"""The spirographs on nodes: ``python -m tests.support.far_spirographs FOLDER NODES HOST PORT KEY``.

With 0 nodes, on this machine. It leaves a picture and all that was published in the folder.
"""

from __future__ import annotations

import sys
from pathlib import Path

from creamas_sc import run
from creamas_sc.nodes import Nodes
from examples.spirographs.report import contact_sheet
from examples.spirographs.society import Plan, simulate

PICTURE, PUBLISHED = "sheet.png", "published.txt"


def main(folder: Path, nodes: int, host: str, port: int, key_file: str) -> None:
    """Run the society."""
    where = Nodes((host, port), key_file, nodes, 30.0) if nodes else None
    plan = Plan(agents=12, steps=8, slaves=4, seed=3)
    steps = run(simulate(plan, {}, lambda step: None, where))
    contact_sheet(steps, folder / PICTURE, "the same")
    with (folder / PUBLISHED).open("w") as file:
        for step in steps:
            print(step.number, step.invented, step.discarded, step.asked, file=file)
            for each in step.published:
                print(each.obj.tobytes().hex(), each.env_time, file=file)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4]), sys.argv[5])
